"""The W&B workspace as code: the first charts to read in a project. Needs the extra `.[dashboard]`."""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finflow.allocators.priors import EXPERTS
from finflow.errors import ConfigError, DataError
from finflow.tracking import wandb_sink
from finflow.tracking.sink import LEFT
from finflow.tracking.tensorboard import SECTIONS, title

TUNED = ("algo.alpha_init", "algo.cql.alpha", "algo.actor_lr", "algo.batch_size")
"""Settings that the training guide calls very important."""
OBJECTIVES = ("validation_sharpe.max", "validation_active_information_ratio.max")


@dataclass(frozen=True)
class Place:
    """Where a workspace is saved; `view` is the id and name that the server gave it, if it was saved before."""

    entity: str | None
    project: str
    view: tuple[str, str] | None = None


def build(place: Place) -> Any:
    """The workspace, built without any request to a server.

    Raises
    ------
    ConfigError
        If `wandb-workspaces` is not installed.
    """
    reports, workspaces = _library()
    workspace = workspaces.Workspace(
        entity=place.entity or "", project=place.project, name="FinFlow", sections=list(_sections(reports, workspaces))
    )
    if place.view is not None:
        workspace._internal_id, workspace._internal_name = place.view
    return workspace


def as_json(workspace: Any) -> dict[str, Any]:
    """The specification of sections and panels that the server receives."""
    return workspace._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def require_key() -> None:
    """Raise a `ConfigError` if there is no W&B key."""
    if not wandb_sink.has_key(wandb_sink.load()):
        raise ConfigError("tracking.wandb.mode=online: no key: run `wandb login`, or set WANDB_API_KEY")


def save(place: Place, patience: float) -> tuple[Place, str]:
    """Save the workspace, over the one of `place.view` if there is one; where it is now, and its address.

    Raises
    ------
    DataError
        If the server refuses it, or does not answer within `patience` seconds.
    """
    wandb = wandb_sink.load()
    found: list[tuple[Place, str]] = []
    failed: list[str] = []

    def work() -> None:
        try:
            entity = place.entity or wandb.Api().default_entity
            workspace = build(Place(entity, place.project, place.view))
            with contextlib.redirect_stderr(io.StringIO()):  # it says where it is saved, as the caller will
                workspace.save()
            view = (str(workspace._internal_id), str(workspace._internal_name))
            found.append((Place(entity, place.project, view), str(workspace.url)))
        except Exception as error:  # noqa: BLE001 - the library raises whatever its transport raises
            failed.append(" ".join(str(error).split()) or type(error).__name__)

    thread = threading.Thread(target=work, name="dashboard", daemon=True)
    thread.start()
    thread.join(patience)
    if found:
        return found[0]
    if thread.is_alive():
        LEFT.append(thread)
        wandb_sink.end_service()
        failed.append(f"no answer within {patience:g} s")
    raise DataError(f"tracking.wandb.mode=online: the workspace is not saved ({failed[0]}); try again later")


def _library() -> tuple[Any, Any]:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ConfigError(
            f"the dashboard needs wandb-workspaces ({error}); pip install -c constraints.txt -e '.[dashboard]'"
        ) from error
    return reports, workspaces


def _sections(reports: Any, workspaces: Any) -> Iterator[Any]:
    """Sections in order: learning, earnings, gate and experts, alerts, settings."""

    def section(name: str, panels: list[Any]) -> Any:
        return workspaces.Section(name=name, panels=panels, is_open=True)

    shares = [reports.LinePlot(title=f"share of {name}", x="episode", y=[f"gate/{name}"]) for name in EXPERTS]
    turnover = reports.ScatterPlot(title="Sharpe and turnover", x="validation_turnover", y=OBJECTIVES[0])
    more = dict(zip(SECTIONS, ([], [turnover], shares), strict=True))
    for name, steps in SECTIONS.items():
        lines = [
            reports.LinePlot(title=f"{title(figure)}, by {step}", x=step, y=[figure])
            for step, figures in steps.items()
            for figure in figures
        ]
        yield section(name, [*lines, *more[name]])
    yield section("Alerts", [reports.WeavePanelSummaryTable(table_name="alerts")])
    parameters = [reports.ParallelCoordinatesPlotColumn(metric=reports.Config(key)) for key in TUNED]
    results = [reports.ParallelCoordinatesPlotColumn(metric=reports.SummaryMetric(key)) for key in OBJECTIVES]
    yield section(
        "Sweep comparison",
        [
            reports.ParallelCoordinatesPlot(title="Settings and validation", columns=[*parameters, *results]),
            reports.ParameterImportancePlot(with_respect_to=OBJECTIVES[0]),
            reports.LinePlot(
                title="validation Sharpe by group", x="episode", y=["validation_sharpe"], groupby="Group",
                groupby_aggfunc="mean", groupby_rangefunc="minmax",
            ),
            reports.RunComparer(diff_only="split"),
        ],
    )  # fmt: skip
