"""Regime labels: thresholds and hysteresis by hand, base rates on real prices, stretches."""

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market
from finflow.data.features import drawdown, label_regimes, stretches
from finflow.data.market import NO_LABEL, REGIMES, Market
from finflow.errors import ConfigError
from finflow.schema.sections import Regimes

STABLE, NORMAL, VOLATILE, CRISIS = range(4)
RULES = load("pretrain").env.regimes


def reference(index: np.ndarray, min_days: int, rules: Regimes) -> list[int]:
    """The rules once more, from slices of the past alone."""
    labels: list[int] = []
    volatile = crisis = False
    wealth = np.cumprod(1 + index)
    volatilities: list[float] = []
    for t in range(len(index)):
        loss = 1 - wealth[t] / wealth[: t + 1].max(initial=1.0)
        crisis = (loss >= rules.leave_crisis) if crisis else (loss > rules.enter_crisis)
        if t < 20:
            labels.append(NO_LABEL)
            continue
        now = float(np.std(index[t - 20 : t + 1], ddof=1))
        volatilities.append(now)
        if len(volatilities) < min_days:
            labels.append(NO_LABEL)
            continue
        median = np.quantile(volatilities, 0.5)
        level = rules.leave_volatile * median if volatile else np.quantile(volatilities, rules.enter_volatile)
        volatile = now >= level
        label = STABLE if now <= np.quantile(volatilities, rules.stable) else NORMAL
        labels.append(CRISIS if crisis else VOLATILE if volatile else label)
    return labels


OWN = {"stable": 0.3, "enter_volatile": 0.9, "leave_volatile": 1.4, "enter_crisis": 0.25, "leave_crisis": 0.1}


@pytest.mark.parametrize("changed", [{}, *({key: value} for key, value in OWN.items()), OWN])
@pytest.mark.parametrize(("days", "min_days"), [(1500, 756), (776, 756), (775, 252), (300, 252)])
def test_labels_follow_the_rules(days: int, min_days: int, changed: dict[str, float]) -> None:
    rules = RULES.model_copy(update=changed)
    rng = np.random.default_rng(3)
    index = 0.008 * np.exp(np.sin(np.arange(days) / 80)) * rng.standard_normal(days) + 0.0005
    index[1200:1230] -= 0.014
    index[1240:1480] += 0.002
    labels, warnings = label_regimes(index, rules)
    assert labels.dtype == np.int8
    assert labels.tolist() == reference(index, min_days, rules)
    assert bool(warnings) == (min_days == 252)
    if days == 1500:
        assert set(labels.tolist()) == {NO_LABEL, STABLE, NORMAL, VOLATILE, CRISIS}
        assert (labels.tolist() != reference(index, min_days, RULES)) == bool(changed), "each threshold counts"


def test_short_history_is_said() -> None:
    _, warnings = label_regimes(np.random.default_rng(0).normal(0, 0.01, 500), RULES)
    assert warnings == ("regimes: 480 days of volatility, under 756; labels begin after 252",)


def test_drawdown_by_hand() -> None:
    np.testing.assert_allclose(drawdown(np.array([np.nan, -0.1, 1.0, -0.5, -1.0])), [0, 0.1, 0, 0.5, 1], atol=1e-15)


def test_crisis_begins_beyond_15_and_ends_under_7_5_percent() -> None:
    rng = np.random.default_rng(1)
    index = np.concatenate([rng.normal(0.001, 0.001, 900), np.full(12, -0.02), np.full(60, 0.004)])
    labels, _ = label_regimes(index, RULES)
    loss = drawdown(index)
    begin = int(np.argmax(loss > 0.15))
    end = begin + int(np.argmax(loss[begin:] < 0.075))
    assert (labels[begin:end] == CRISIS).all()
    assert labels[begin - 1] != CRISIS
    assert labels[end] != CRISIS


def test_base_rates_on_real_prices(sp500: Market) -> None:
    """Measured on the default fold's train rows: no label is a constant, none is missing."""
    rates = np.bincount(sp500.regime[1265:6279], minlength=4) / (6279 - 1265)
    np.testing.assert_allclose(rates, [0.519, 0.168, 0.164, 0.150], atol=0.005)
    assert sp500.regime[776] == NO_LABEL
    assert sp500.regime[777] != NO_LABEL
    by_date = dict(zip(sp500.dates.astype(str).tolist(), sp500.regime.tolist(), strict=True))
    assert REGIMES[by_date["2008-10-10"]] == "crisis"
    assert REGIMES[by_date["2020-03-16"]] == "crisis"
    assert REGIMES[by_date["2017-06-15"]] == "stable"


def test_labels_persist(sp500: Market) -> None:
    """Hysteresis keeps stretches long enough to train on."""
    changes = np.count_nonzero(np.diff(sp500.regime[1265:]))
    assert changes / 28 < 20, "changes a year"
    for label in REGIMES:
        long = [b - a for a, b in stretches(sp500.regime, range(1265, 6279), label) if b - a >= 21]
        assert sum(long) >= 252, label


def test_stretches_by_hand() -> None:
    regime = np.array([-1, 1, 0, 0, 2, 2, 2, 0, 1, -1], dtype=np.int8)
    assert stretches(regime, range(10), "stable") == [(2, 4), (7, 8)]
    assert stretches(regime, range(3, 6), "volatile") == [(4, 6)]
    assert stretches(regime, range(10), "normal") == [(0, 2), (8, 10)], "no label yet counts as normal"
    assert stretches(regime, range(10), "crisis") == []
    assert stretches(regime, [0, 1, 2, 5, 6], "all") == [(0, 3), (5, 7)]
    with pytest.raises(ConfigError, match=r"calm.*choose one of all, stable, normal, volatile, crisis"):
        stretches(regime, range(10), "calm")


def test_own_thresholds_reach_the_labels_and_make_another_market() -> None:
    small = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=3"]
    usual = build_market(load("pretrain", small).env)
    own = build_market(load("pretrain", [*small, "env.regimes.enter_crisis=0.1", "env.regimes.leave_crisis=0.05"]).env)
    assert (own.regime == CRISIS).sum() > (usual.regime == CRISIS).sum() > 0
    assert own.fingerprint != usual.fingerprint, "weights of one are not taken for the other"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("enter_crisis=0.05", "env.regimes.leave_crisis=0.075: above env.regimes.enter_crisis=0.05; set one of them"),
        ("stable=0.85", "env.regimes.stable=0.85: above env.regimes.enter_volatile=0.8; set one of them otherwise"),
        ("enter_volatile=1", "env.regimes.enter_volatile=1"),
    ],
)
def test_thresholds_out_of_order_are_refused(typed: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load("pretrain", [f"env.regimes.{typed}"])
