import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from skfolio import RiskMeasure
from skfolio.distance import CovarianceDistance
from skfolio.moments import LedoitWolf
from skfolio.optimization import (
    HierarchicalRiskParity,
    InverseVolatility,
    MaximumDiversification,
    MeanRisk,
    RiskBudgeting,
)
from skfolio.prior import EmpiricalPrior

from finflow.allocators import priors
from finflow.allocators.baselines import equal_risk_contribution, hierarchical_risk_parity
from finflow.allocators.priors import (
    inverse_volatility,
    kelly,
    maximum_diversification,
    minimum_variance,
    nonnegative_qp,
    rolling_covariance,
)
from finflow.errors import DataError

ROWS = np.array([2500, 4750, 7600])
OF_COVARIANCE = (minimum_variance, maximum_diversification, equal_risk_contribution, hierarchical_risk_parity)


def oracle(kind):
    prior = EmpiricalPrior(covariance_estimator=LedoitWolf())
    if kind is MeanRisk:
        exact = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-11}  # daily variances are near the default tolerance
        return MeanRisk(risk_measure=RiskMeasure.VARIANCE, prior_estimator=prior, solver_params=exact)
    if kind is RiskBudgeting:
        return RiskBudgeting(risk_measure=RiskMeasure.VARIANCE, prior_estimator=prior)
    if kind is HierarchicalRiskParity:
        distance = CovarianceDistance(covariance_estimator=LedoitWolf())
        return HierarchicalRiskParity(prior_estimator=prior, distance_estimator=distance)
    return kind(prior_estimator=prior)


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (minimum_variance, MeanRisk, 1e-4),
        (maximum_diversification, MaximumDiversification, 1e-4),
        (equal_risk_contribution, RiskBudgeting, 1e-4),
        (hierarchical_risk_parity, HierarchicalRiskParity, 1e-12),
    ],
)
def test_weights_are_those_of_skfolio(sp500, ours, theirs, tolerance):
    covariance, mask = rolling_covariance(sp500, ROWS)
    weights = ours(covariance, mask)
    for i, t in enumerate(ROWS):
        expected = oracle(theirs).fit(sp500.returns[t - 251 : t + 1, :20]).weights_
        np.testing.assert_allclose(weights[i], expected, atol=tolerance)


def test_inverse_volatility_is_that_of_skfolio(sp500):
    covariance, mask = rolling_covariance(sp500, ROWS[:1])
    weights = inverse_volatility(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), mask)
    expected = oracle(InverseVolatility).fit(sp500.returns[ROWS[0] - 251 : ROWS[0] + 1, :20]).weights_
    np.testing.assert_allclose(weights[0], expected, atol=1e-12)


def test_every_day_of_the_real_market_solves_its_optimality_conditions(sp500):
    covariance, mask = rolling_covariance(sp500, np.arange(1000, 8313, 3))
    w = minimum_variance(covariance, mask)
    slope = np.einsum("bij,bj->bi", covariance, w)
    variance = (slope * w).sum(axis=1, keepdims=True)
    assert (slope >= variance * (1 - 1e-9)).all()  # no name would lower the variance ...
    assert np.abs(slope / variance - 1)[w > 0].max() < 1e-9  # ... and all held ones matter alike
    w = equal_risk_contribution(covariance, mask)
    shares = np.einsum("bij,bj->bi", covariance, w) * w
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), 1 / 20, atol=1e-10)


KELLY = [
    # Where no bound is active the answer is S^-1 m; the lognormal investor's is the second number, to third order.
    ((0.03, 0.02), ((0.0625, 0.015), (0.015, 0.04)), (0.9 / 2.275, 0.8 / 2.275), (0.3945, 0.3510)),
    ((0.04, -0.02), ((0.09, 0.02), (0.02, 0.04)), (4 / 9, 0.0), (0.44, 0.0)),
]


@pytest.mark.parametrize(("mean", "covariance", "quadratic", "lognormal"), KELLY)
def test_kelly_known_answers(mean, covariance, quadratic, lognormal):
    weights = kelly(np.array([mean]), np.array([covariance]), np.ones((1, 2), dtype=np.bool_))[0]
    np.testing.assert_allclose(weights, quadratic, atol=1e-12)
    np.testing.assert_allclose(weights, lognormal, atol=5e-3)


def test_kelly_without_cash_by_hand():
    # Two uncorrelated names of variance 1 and means (3, 2): on w1 + w2 = 1, 3 - w1 = 2 - w2, so w = (1, 0); of
    # means (3, 2.5): w = (.75, .25).
    covariance, mask = np.stack([np.eye(2)] * 2), np.ones((2, 2), dtype=np.bool_)
    weights = kelly(np.array([[3, 2], [3, 2.5]]), covariance, mask)
    np.testing.assert_allclose(weights, [[1, 0], [0.75, 0.25]], atol=1e-12)


def test_kelly_objective_is_that_of_scipy(sp500):
    covariance, mask = rolling_covariance(sp500, ROWS)
    means = np.random.default_rng(1).normal(2e-4, 3e-4, (3, 20))
    means[2] /= 20  # the last keeps cash
    weights = kelly(means, covariance, mask)
    assert weights[2].sum() < 0.9 < weights[0].sum()
    for w, m, s in zip(weights, means, covariance, strict=True):

        def loss(x, m=m, s=s):
            return -1e4 * (m @ x - x @ s @ x / 2)

        limit = {"type": "ineq", "fun": lambda x: 1 - x.sum()}
        best = minimize(
            loss, np.full(20, 0.02), bounds=[(0, 1)] * 20, constraints=limit, options={"ftol": 1e-12, "maxiter": 500}
        )
        assert loss(w) <= best.fun + 1e-6 * abs(best.fun)
        np.testing.assert_allclose(w, best.x, atol=2e-3)


@st.composite
def problems(draw):
    seed, names = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 9))
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((4, names, draw(st.integers(1, 4))))
    scale = 10.0 ** rng.uniform(-4, 0, (4, names))
    matrix = factors @ factors.transpose(0, 2, 1) + draw(st.sampled_from([1e-3, 0.1, 1.0])) * np.eye(names)
    mask = rng.random((4, names)) < draw(st.sampled_from([0.2, 0.7, 1.0]))
    return matrix * scale[:, :, None] * scale[:, None, :], mask, rng.standard_normal((4, names))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_allocation_is_a_portfolio_of_the_names_in_the_mask(problem):
    covariance, mask, mean = problem
    some = mask.any(axis=1)
    hidden = np.where(mask[:, :, None] & mask[:, None, :], covariance, np.nan)
    for allocate in OF_COVARIANCE:
        weights = allocate(covariance, mask)
        assert (weights >= 0).all()
        assert (weights[~mask] == 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), some, atol=1e-12)
        assert (allocate(hidden, mask) == weights).all()
    weights = kelly(mean, hidden, mask)
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()
    assert (weights.sum(axis=1) <= 1 + 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(problems())
def test_nonnegative_qp_solves_its_optimality_conditions(problem):
    matrix, mask, b = problem
    sigma = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    a = matrix / sigma[:, :, None] / sigma[:, None, :]
    y = nonnegative_qp(a, b, mask)
    slope = np.einsum("bij,bj->bi", a, y) - b
    assert (y >= 0).all()
    assert (y[~mask] == 0).all()
    assert (slope[mask] > -1e-7).all()
    assert (np.abs(slope[y > 0]) < 1e-7 * max(1, np.abs(y).max())).all()


def test_nonnegative_qp_ends_where_exchanging_all_signs_would_cycle():
    # Nearly singular, with competing names: full exchanges alone run in circles on some of these.
    rng = np.random.default_rng(3)
    factors = rng.standard_normal((400, 12, 2))
    a = factors @ factors.transpose(0, 2, 1) + 1e-6 * np.eye(12)
    b = rng.standard_normal((400, 12))
    y = nonnegative_qp(a, b, np.ones((400, 12), dtype=np.bool_))
    slope = np.einsum("bij,bj->bi", a, y) - b
    assert slope.min() > -1e-5
    assert np.abs(slope * y / np.maximum(1, y)).max() < 1e-5


def test_equal_risk_of_nearly_dependent_names_converges():
    factors = np.random.default_rng(4).standard_normal((50, 20, 2))
    covariance = factors @ factors.transpose(0, 2, 1) + 1e-6 * np.eye(20)
    w = equal_risk_contribution(covariance, np.ones((50, 20), dtype=np.bool_))
    shares = np.einsum("bij,bj->bi", covariance, w) * w
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), 1 / 20, atol=1e-6)


def test_a_name_without_variance_is_refused_in_one_line():
    covariance = np.array([[[0.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(DataError, match=r"^covariance\[0\]: variance of name 0 is 0.0; mask names .*$"):
        minimum_variance(covariance, np.ones((1, 2), dtype=np.bool_))


@pytest.mark.parametrize("factors", [2, 60])
def test_of_many_names_those_that_are_held_are_solved_for_alone(monkeypatch, factors):
    """The same portfolios as from the whole system: of few names in the mask, of none, and of means below cash."""
    rng, names = np.random.default_rng(factors), 3 * priors.FEW // 2
    loadings = 0.01 * rng.standard_normal((8, names, factors))
    covariance = loadings @ loadings.transpose(0, 2, 1) + np.diag(rng.uniform(1e-5, 4e-4, names))
    mask = rng.random((8, names)) < np.array([1, 1, 1, 0.7, 0.1, 1, 0.02, 0])[:, None]
    mean = rng.normal(2e-4, 3e-4, (8, names)) * np.array([1, 1e-4, 10, 1, 1, 1, 1, 1])[:, None]
    mean[5] = -np.abs(mean[5])
    covariance = np.where(mask[:, :, None] & mask[:, None, :], covariance, np.nan)
    solvers = [minimum_variance, maximum_diversification, lambda s, m: kelly(mean, s, m)]
    found = [solve(covariance, mask) for solve in solvers]
    sizes, exact = [], np.linalg.solve
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: sizes.append(a.shape[1]) or exact(a, b))
    minimum_variance(covariance, mask)
    assert sizes[0] <= names // 4
    monkeypatch.setattr(priors, "FEW", names)
    for weights, solve in zip(found, solvers, strict=True):
        np.testing.assert_allclose(weights, solve(covariance, mask), atol=1e-12)
    held = (found[2] > 0).sum(axis=1)
    assert found[2][0].sum() == pytest.approx(1)
    assert 0 < found[2][1].sum() < 1
    assert held[5] == held[7] == 0 < held[3]


@pytest.mark.parametrize("names", [priors.FEW, priors.FEW + 1])
def test_what_stands_outside_the_mask_is_not_read(names):
    rng = np.random.default_rng(3)
    factor = rng.standard_normal((2, 2 * names, names))
    a, b = factor.transpose(0, 2, 1) @ factor, rng.standard_normal((2, names))
    mask = rng.random((2, names)) < 0.6
    pair = mask[:, :, None] & mask[:, None, :]
    for plane in (None, np.ones_like(b)):
        wanted = priors.nonnegative_qp(np.where(pair, a, 7.0), np.where(mask, b, 7.0), mask, plane)
        found = priors.nonnegative_qp(np.where(pair, a, np.nan), np.where(mask, b, np.nan), mask, plane)
        np.testing.assert_allclose(found, wanted, atol=1e-14)
