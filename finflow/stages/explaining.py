"""Inputs of explanations from trained runs: traces of their windows, and facts that identify them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finflow.artifacts.runs import opened_by
from finflow.data.features import Gauges, regime_gauges
from finflow.data.market import Window
from finflow.evaluation.files import read_track
from finflow.evaluation.result import Track
from finflow.explanations.card import Card, Explainer
from finflow.explanations.decision_trace import DecisionTrace, Subject, make_scene
from finflow.explanations.overview import Overview, overview
from finflow.io.files import atomic_json
from finflow.report.card import write_card
from finflow.schema import part_of
from finflow.schema.fields import Role, digest
from finflow.stages.loaded_run import Trained
from finflow.stages.run_groups import Group, Kind, groups_of

CARDS = 3
"""Cards that a report holds for the largest trades of each window, beside the first days of known crises."""
_WHAT_IT_IS = set(Role) - {Role.OUTPUT, Role.HOST, Role.SPEED, Role.PRECISION, Role.TRACKING, Role.REQUEST}
"""Roles of the keys in a card's hash: all but where and how a run was made. Commands and names are not needed there,
but the hashes of earlier cards have them."""


def subject_of(group: Group) -> Subject:
    """A group's policy on its market."""
    prepared, critics = group.prepared, tuple(run.networks.critic for run in group.runs)
    return Subject(
        prepared.market, prepared.fold, prepared.world, prepared.spec, group.policy, critics,
        group.first.config.algo.gamma,
    )  # fmt: skip


def gauges_of(trained: Trained) -> Gauges:
    """The gauges by which the market's days were labelled."""
    market = trained.prepared.market
    return regime_gauges(market.index, trained.config.env.regimes, market.calendar)


def provenance_of(group: Group) -> dict[str, Any]:
    """Facts of a card that stay the same wherever and whenever it is made; of seeds averaged those of each."""
    market, env = group.prepared.market, group.first.config.env

    def each(facts: Sequence[Any]) -> Any:
        return facts[0] if len(facts) == 1 else list(facts)

    owns = [run.config for run in group.runs]
    places = [run.folder for run in group.runs]
    return {
        "run": each([f"{own.stage}/{at.parent.name}/{at.name}" for own, at in zip(owns, places, strict=True)]),
        "data": f"{env.source}, {market.dates[0]} to {market.dates[-1]}",
        "data_fingerprint": market.fingerprint,
        "config_hash": each([digest(part_of(own.model_dump(), _WHAT_IT_IS)) for own in owns]),
        "weights_sha256": each(group.weights),
        "fold": group.prepared.fold.name,
        "seed": each([own.seed for own in owns]),
    }


def window_track(group: Group, name: str) -> Track | None:
    """Track of a window: of the test window as an evaluation stored it, None without one; else computed anew."""
    prepared = group.prepared
    window: Window = getattr(prepared.fold, name)
    if name != "test":
        return prepared.track(window, group.policy.act)
    root, test = group.first.config.output_root, list(prepared.dates["test"])
    folder = opened_by(root, group.weights, prepared.fold.name, test)
    return None if folder is None else read_track(folder, prepared.market, window, prepared.accounting.cost_rate)


def explainer_of(group: Group, name: str, track: Track, gauges: Gauges) -> Explainer:
    """Explains decisions of one window as `track` holds them."""
    scene = make_scene(subject_of(group), getattr(group.prepared.fold, name), track)
    judge = None if name == "test" else critic_window(group, name, scene)
    return Explainer(scene, name, gauges, provenance_of(group), group.first.config.seed, judge)


def critic_window(group: Group, name: str, scene: DecisionTrace) -> tuple[str, DecisionTrace]:
    """Window that judges the critic for cards of window `name`, whose trace is `scene`, and its trace.

    The test window where an evaluation has opened it on the same data, else validation.
    """
    same = all(run.past.changed is None and run.past.readjusted is None for run in group.runs)
    test = window_track(group, "test") if same else None
    if test is not None:
        return "test", make_scene(subject_of(group), group.prepared.fold.test, test)
    if name == "validation":
        return name, scene
    track = window_track(group, "validation")
    assert track is not None
    return "validation", make_scene(subject_of(group), group.prepared.fold.validation, track)


def explain_windows(
    runs: Sequence[Trained],
    kind: Kind,
    tracks: Sequence[Track],
    labels: Sequence[str],
    sectors: Sequence[str] | None = None,
) -> Overview:
    """Explain what an evaluation has just judged.

    tracks : of each window, the policy's: one, or as many as folds were stitched, in the order of `groups_of`.
    labels : short names of the windows; sectors : of the risky names, where they are given.
    """
    groups = groups_of(runs, kind)[: len(tracks)]
    names = [f"seeds {', '.join(str(run.config.seed) for run in runs)}"] if kind == "seeds" else labels
    gauges = gauges_of(runs[0])
    explainers, windows = dict[str, Explainer](), list[list[DecisionTrace]]()
    for name, group, track in zip(names, groups, tracks, strict=False):
        explainers[name] = explainer_of(group, "test", track, gauges)
        scene = explainers[name].scene
        windows.append([scene])
        if len(group.runs) > 1:  # each seed along the common track: how the inputs that matter depend on the seed
            alone = [subject_of(Group((run,))) for run in group.runs]
            windows[-1] = [make_scene(subject, scene.window, scene.track, check=False) for subject in alone]
    return overview(windows, explainers, CARDS, sectors)


def store_card(folder: Path, card: Card) -> Path:
    """Write a card as a page and as JSON beside it; returns the page."""
    page = folder / f"card-{card.date}.html"
    write_card(page, card)
    atomic_json(page.with_suffix(".json"), card.to_dict())
    return page
