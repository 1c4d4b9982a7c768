"""Every rule fires on a case and stays silent on the healthy one, at the thresholds of conf/."""

import math
import statistics

import pytest

from finflow.config.compose import load
from finflow.schema.sections import MonitorConfig
from finflow.training.monitor import (
    MIN_EPISODES,
    MIN_REWARDS,
    Finding,
    Moments,
    after_updates,
    after_validation,
    entropy,
    entropy_per_name,
    reward_outlier,
    sharpe,
)

LIMITS = load("finetune").monitor
HEALTHY = {
    "q_mean": -0.5, "critic_loss": 0.12, "actor_loss": 4.6, "q_loss": 0.1, "policy_loss": 3.2,
    "critic_grad_norm": 6.0, "actor_grad_norm": 0.5, "effective_assets": 4.8,
}  # fmt: skip
SCORE = {
    "validation_sharpe": 1.0,
    "validation_active_information_ratio": -0.5,
    "validation_turnover": 2.7,
    "validation_effective_assets": 20.0,
}


def test_the_guides_thresholds_stand_in_conf() -> None:
    assert (LIMITS.q_value, LIMITS.actor_loss, LIMITS.critic_loss, LIMITS.sharpe) == (100.0, 50.0, 20.0, -0.5)
    assert LIMITS.mode == "warn"


def test_healthy_figures_are_silent() -> None:
    """Scales of real runs on the embedded market (docs/monitoring.md)."""
    assert after_updates(HEALTHY, LIMITS) == []
    assert after_validation(SCORE, 1.1, LIMITS) == []
    assert after_updates({}, LIMITS) == []
    assert after_validation(dict.fromkeys(SCORE), None, LIMITS) == []


@pytest.mark.parametrize(
    ("rule", "name", "value", "remedy"),
    [
        ("q_value", "q_mean", 101.0, "raise_cql"),
        ("q_value", "q_mean", -101.0, "raise_cql"),
        ("critic_loss", "critic_loss", 21.0, "lower_lr"),
        ("critic_loss", "q_loss", 21.0, "lower_lr"),
        ("actor_loss", "actor_loss", -51.0, "lower_lr"),
        ("actor_loss", "policy_loss", 51.0, "lower_lr"),
        ("grad_norm", "critic_grad_norm", 101.0, "lower_lr"),
        ("grad_norm", "actor_grad_norm", 101.0, "lower_lr"),
        ("effective_assets", "effective_assets", 1.1, "raise_cql"),
    ],
)
def test_what_explodes_is_found_by_name_and_limit(rule: str, name: str, value: float, remedy: str) -> None:
    (finding,) = after_updates(HEALTHY | {name: value}, LIMITS)
    assert (finding.rule, finding.remedy) == (rule, remedy)
    assert finding.wrong.startswith(f"{name} ")
    assert f"monitor.{rule}={getattr(LIMITS, rule):g}" in finding.wrong
    assert "\n" not in finding.line()
    off = LIMITS.model_copy(update={rule: None})
    assert after_updates(HEALTHY | {name: value}, off) == []


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("dip", {"validation_sharpe": 0.7}),
        ("turnover", {"validation_turnover": 101.0}),
        ("effective_assets", {"validation_effective_assets": 1.1}),
    ],
)
def test_what_validation_shows_is_found(rule: str, change: dict[str, float]) -> None:
    (finding,) = after_validation(SCORE | change, 1.1, LIMITS)
    assert finding.rule == rule
    assert after_validation(SCORE | change, 1.1, LIMITS.model_copy(update={rule: None})) == []


def test_a_dip_needs_a_phase_one() -> None:
    assert after_validation(SCORE | {"validation_sharpe": 0.7}, None, LIMITS) == []


def test_a_bad_sharpe_ratio_is_the_policys_fault_only_under_one_over_n() -> None:
    bad = SCORE | {"validation_sharpe": -0.6}
    assert [f.rule for f in after_validation(bad, -0.5, LIMITS)] == ["validation_sharpe"]
    assert after_validation(bad | {"validation_active_information_ratio": 0.2}, -0.5, LIMITS) == []
    assert after_validation(SCORE | {"validation_sharpe": -0.4}, -0.3, LIMITS) == []


def test_entropy_is_judged_a_name_against_its_target() -> None:
    """20 names at sigma .147 have a negative entropy, so the guide's "warning under 0.01" would never be silent."""
    target = 20 * (math.log(0.147) + 0.5 * math.log(2 * math.pi * math.e))
    assert target < 0
    now = entropy_per_name({"entropy": target - 1.0, "entropy_target": target}, 20)
    assert now is not None
    assert entropy(now, None, LIMITS) is None
    low = entropy_per_name({"entropy": target - 21.0, "entropy_target": target}, 20)
    assert low is not None
    assert _rule(entropy(low, None, LIMITS)) == "entropy_gap"
    assert entropy(low, None, _without("entropy_gap")) is None
    assert entropy_per_name({"critic_loss": 1.0}, 20) is None


def test_entropy_is_judged_against_its_own_history() -> None:
    assert _rule(entropy((-0.4, -0.1), (0.7, -0.1), LIMITS)) == "entropy_fall"
    assert entropy((-0.4, -0.1), (0.7, -0.1), _without("entropy_fall")) is None
    assert entropy((-0.4, -0.1), (0.5, -0.1), LIMITS) is None, "a fall of .9"
    assert entropy((0.2, -0.1), (1.2, -0.1), LIMITS) is None, "still above its target"
    assert entropy((-0.4, -0.3), (0.7, 0.1), LIMITS) is None, "the target fell as well"


def test_a_reward_outlier_is_told_from_a_fat_tail() -> None:
    past = Moments(MIN_REWARDS, 0.1, 0.25 * MIN_REWARDS)
    assert past.std == 0.5
    far = 0.1 + 0.5 * float(LIMITS.reward_sigmas or 0)
    assert reward_outlier(-5.0, far - 0.01, past, LIMITS) is None
    assert _rule(reward_outlier(-5.0, far + 0.01, past, LIMITS)) == "reward_sigmas"
    assert _rule(reward_outlier(0.2 - far - 0.01, 5.0, past, LIMITS)) == "reward_sigmas"
    assert reward_outlier(-1e9, 5.0, past._replace(total=MIN_REWARDS - 1), LIMITS) is None
    assert reward_outlier(-1e9, 5.0, past, _without("reward_sigmas")) is None


def test_the_outliers_finding_blames_no_learner() -> None:
    finding = reward_outlier(-1e9, 0.0, Moments(MIN_REWARDS, 0.0, 1.0), LIMITS)
    assert finding is not None
    assert finding.remedy is None
    assert "data" in finding.line()


def test_moments_merge_to_those_of_all_numbers() -> None:
    numbers = [0.3, -2.0, 5.5, 1.25, 1e3, -7.0, 0.0]
    merged = Moments()
    for part in (numbers[:2], numbers[2:3], numbers[3:]):
        mean = statistics.fmean(part)
        merged = merged.merged(Moments(len(part), mean, sum((x - mean) ** 2 for x in part)))
    assert merged.total == len(numbers)
    assert merged.mean == pytest.approx(statistics.fmean(numbers))
    assert merged.std == pytest.approx(statistics.pstdev(numbers))
    assert Moments().merged(Moments()).std == 0.0


def test_the_sharpe_ratio_of_episodes_must_be_clearly_low() -> None:
    spread = [x for _ in range(MIN_EPISODES // 2) for x in (-1.0, 1.0)]
    assert _rule(sharpe([x - 2.0 for x in spread], LIMITS)) == "sharpe"
    assert sharpe([x - 0.6 for x in spread], LIMITS) is None, "within two standard errors"
    assert sharpe([-9.0] * (MIN_EPISODES - 1), LIMITS) is None, "too few"
    assert sharpe([x - 2.0 for x in spread], _without("sharpe")) is None


def _rule(finding: Finding | None) -> str | None:
    return None if finding is None else finding.rule


def _without(rule: str) -> MonitorConfig:
    return LIMITS.model_copy(update={rule: None})
