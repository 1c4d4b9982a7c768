"""Walk-forward: the test windows of several folds joined to one track with one verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.errors import ConfigError
from finflow.evaluation.backtest import POLICY, Bootstrap, Strategy, Task, lagged
from finflow.evaluation.linear_tilt import LINEAR
from finflow.evaluation.metrics import by_regime, stress_table, track_metrics
from finflow.evaluation.result import Evaluation, Scrutiny, Track
from finflow.evaluation.robustness import compare, detectable, over_cash, own, spa
from finflow.evaluation.verdict import benchmark_verdict, scaled_track, verdict_of

BEST = "best baseline of each fold's validation"


@dataclass(frozen=True)
class Part:
    """One fold of a walk-forward: its evaluation, and its inputs."""

    evaluation: Evaluation
    task: Task
    act: Strategy


def stitch(parts: Sequence[Part], bootstrap: Bootstrap) -> Evaluation:
    """Join folds whose test windows follow each other; every fold starts from cash and pays its own entry.

    Costs and reality checks belong to single folds and are left empty.

    Raises ConfigError if two test windows overlap.
    """
    parts = sorted(parts, key=lambda part: part.task.fold.test.start)
    for one, two in pairwise(parts):
        first, second = one.task.fold, two.task.fold
        if second.test.start < first.test.stop:
            raise ConfigError(f"run: the test windows of folds {first.name} and {second.name} overlap; name others")
    evaluations = [part.evaluation for part in parts]
    policy = join([e.policy for e in evaluations])
    names = [name for name in evaluations[0].baselines if all(name in e.baselines for e in evaluations)]
    baselines = {name: join([e.baselines[name] for e in evaluations]) for name in names}
    opponents = {name: baselines[name] for name in names if name.startswith("1/N")}
    verdict = verdict_of(policy, opponents, bootstrap)
    scales = [part.evaluation.scaled_verdict.scale for part in parts if part.evaluation.scaled_verdict]
    scaled = [
        scaled_track(e.policy, part.task.market, part.task.fold.test, part.task.accounting.cost_rate, scale)
        for part, e, scale in zip(parts, evaluations, scales, strict=True)  # a part decides on train rows as well
    ]
    regime = np.concatenate([e.regime for e in evaluations])
    tracks = {POLICY: policy, **baselines}
    tables, days = by_regime(regime, tracks)
    return Evaluation(
        verdict=verdict,
        scaled_verdict=verdict_of(join(scaled), opponents, bootstrap, float(np.mean(scales))),
        policy=policy,
        baselines=baselines,
        metrics={name: track_metrics(t) for name, t in tracks.items()},
        by_regime=tables,
        regime_days=days,
        scrutiny=_scrutiny(parts, tracks, verdict.opponent, bootstrap),
        costs=[],
        break_even_bps=None,
        assets=evaluations[0].assets,
        expert_names=evaluations[0].expert_names,
        gate=np.concatenate([e.gate for e in evaluations]),
        rate=np.concatenate([e.rate for e in evaluations]),
        regime=regime,
        diagnostics={},
        warnings=tuple(dict.fromkeys(line for e in evaluations for line in e.warnings)),
        window_opened=max(e.window_opened for e in evaluations),
        cash=np.concatenate([e.cash for e in evaluations]),
        benchmark=benchmark_verdict(policy, baselines, bootstrap),
    )


def join(tracks: Sequence[Track]) -> Track:
    """Tracks of one strategy over windows that follow each other, end to end."""

    def ends(field: str) -> NDArray[Any]:
        return np.concatenate([getattr(track, field) for track in tracks])

    fields = ("dates", "weights", "drifted", "turnover", "cost", "gross", "net")
    closures = sum(track.closures for track in tracks)
    return replace(tracks[0], **{field: ends(field) for field in fields}, closures=closures)


def _scrutiny(parts: Sequence[Part], tracks: Mapping[str, Track], opponent: str, bootstrap: Bootstrap) -> Scrutiny:
    best = replace(join([p.evaluation.baselines[p.evaluation.scrutiny.best_baseline] for p in parts]), name=BEST)
    policy = tracks[POLICY]
    delayed = join([p.task.track(p.task.fold.test, lagged(p.act)) for p in parts])
    rivals = (tracks[opponent], best, tracks[LINEAR], *own(tracks))
    cash = np.concatenate([part.evaluation.cash for part in parts])
    pairs = [*((policy, rival) for rival in rivals), *over_cash(policy, rivals[0], cash)]
    return Scrutiny(
        comparisons=tuple(compare(*pair, bootstrap) for pair in pairs),
        best_baseline=BEST,
        spa_p=spa(tracks, opponent, bootstrap),
        lagged=track_metrics(delayed),
        stress=stress_table(tracks),
        reality=(),
        gate=None,
        detectable=detectable(policy, tracks[opponent]),
        regression=None,
    )
