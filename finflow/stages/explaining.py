"""Inputs of explanations from trained runs: traces of their windows, and facts that identify them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finflow.artifacts.runs import opened_by
from finflow.config import digest
from finflow.data.build import market_index
from finflow.data.market import Window
from finflow.data.regimes import Gauges, regime_gauges
from finflow.data.sources import load_prices
from finflow.evaluation.result import Track
from finflow.evaluation.stored_track import read_track
from finflow.explanations.card import Explainer
from finflow.explanations.decision_trace import DecisionTrace, Subject, make_scene
from finflow.explanations.overview import Overview, overview
from finflow.schema import part_of
from finflow.schema.roles import Role
from finflow.stages.loaded_run import Trained
from finflow.stages.run_groups import Kind, by_fold

CARDS = 3
"""Cards that a report holds for the largest trades of each window, beside the first days of known crises."""
_WHAT_IT_IS = set(Role) - {Role.OUTPUT, Role.HOST, Role.SPEED, Role.PRECISION, Role.TRACKING, Role.REQUEST}
"""All but where and how a run was made. It could do without commands and names; hashes of earlier cards hold them."""


def subject_of(trained: Trained) -> Subject:
    """The run's policy on its market."""
    prepared = trained.prepared
    return Subject(
        prepared.market, prepared.fold, prepared.world, prepared.spec, trained.networks, trained.policy,
        trained.config.algo.gamma,
    )  # fmt: skip


def gauges_of(trained: Trained) -> Gauges:
    """What the market's regimes were labelled by."""
    env = trained.config.env
    calendar = trained.prepared.market.calendar
    return regime_gauges(market_index(load_prices(env), env), env.regimes, calendar)


def provenance_of(trained: Trained) -> dict[str, Any]:
    """Facts of a card that stay the same wherever and whenever it is made."""
    own, market = trained.config, trained.prepared.market
    return {
        "run": f"{own.stage}/{trained.folder.parent.name}/{trained.folder.name}",
        "data": f"{own.env.source}, {market.dates[0]} to {market.dates[-1]}",
        "data_fingerprint": market.fingerprint,
        "config_hash": digest(part_of(own.model_dump(), _WHAT_IT_IS)),
        "weights_sha256": trained.summary.get("weights_sha256"),
        "fold": trained.prepared.fold.name,
        "seed": own.seed,
    }


def window_track(trained: Trained, name: str) -> Track | None:
    """Track of a window: as an evaluation stored it for the test window, None where none did; else followed anew."""
    prepared = trained.prepared
    window: Window = getattr(prepared.fold, name)
    if name != "test":
        return prepared.track(window, trained.policy.act)
    digest_of = str(trained.summary.get("weights_sha256"))
    folder = opened_by(trained.config.output_root, digest_of, prepared.fold.name, list(prepared.dates["test"]))
    return None if folder is None else read_track(folder, prepared.market, window, prepared.accounting.cost_rate)


def explainer_of(trained: Trained, name: str, track: Track, gauges: Gauges) -> Explainer:
    """Explains decisions of one window as `track` holds them."""
    scene = make_scene(subject_of(trained), getattr(trained.prepared.fold, name), track)
    judge = None if name == "test" else _judge(trained, name, scene)
    return Explainer(scene, name, gauges, provenance_of(trained), trained.config.seed, judge)


def _judge(trained: Trained, name: str, scene: DecisionTrace) -> tuple[str, DecisionTrace]:
    """The test window where an evaluation has opened it, else validation."""
    test = window_track(trained, "test")
    if test is not None:
        return "test", make_scene(scene.subject, trained.prepared.fold.test, test)
    if name == "validation":
        return name, scene
    track = window_track(trained, "validation")
    assert track is not None
    return "validation", make_scene(scene.subject, trained.prepared.fold.validation, track)


def explain_judged(
    runs: Sequence[Trained],
    kind: Kind,
    tracks: Sequence[Track],
    labels: Sequence[str],
    sectors: Sequence[str] | None = None,
) -> Overview:
    """Explain what an evaluation has just judged.

    Parameters
    ----------
    tracks : of each window, the policy's: one, or as many as folds were stitched, in the order of `by_fold`.
    labels : short names of the windows.
    sectors : of the risky names, where they are given.
    """
    if kind == "seeds":
        scenes = [make_scene(subject_of(run), run.prepared.fold.test, tracks[0], check=False) for run in runs]
        return overview([scenes], {}, 0, sectors)
    if kind == "ensemble":
        groups = zip(by_fold(runs).values(), tracks, strict=True)
        windows = [[make_scene(subject_of(run), run.prepared.fold.test, track, check=False) for run in group]
                   for group, track in groups]  # fmt: skip
        return overview(windows, {}, 0, sectors)
    judged = [group[0] for group in by_fold(runs).values()] if kind == "folds" else [runs[0]]
    gauges = gauges_of(runs[0])
    explainers = {
        label: explainer_of(run, "test", track, gauges)
        for label, run, track in zip(labels, judged, tracks, strict=False)
    }
    return overview([[one.scene] for one in explainers.values()], explainers, CARDS, sectors)


def card_paths(folder: Path, date: str) -> tuple[Path, Path]:
    """Page and data of the card of one day."""
    return folder / f"card-{date}.html", folder / f"card-{date}.json"
