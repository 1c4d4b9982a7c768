import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from finflow.losses import (
    atom_spread,
    cvar,
    expectile_loss,
    lower_mean,
    midpoints,
    quantile_huber_loss,
    quantile_loss,
    truncated_mixture,
)

NORMAL = torch.tensor(norm.ppf((torch.arange(2000) + 0.5).numpy() / 2000))


def _naive(atoms: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Dabney et al. 2018, eq. 10, written out with autograd."""
    error = target[..., None, :] - atoms[..., :, None]
    huber = torch.where(error.abs() <= kappa, 0.5 * error**2, kappa * (error.abs() - 0.5 * kappa))
    count = atoms.shape[-1]
    tau = (2 * torch.arange(count, dtype=atoms.dtype) + 1) / (2 * count)
    loss = (tau[:, None] - (error.detach() < 0).to(atoms.dtype)).abs() * huber / kappa
    return loss.mean(-1).sum(-1).mean()


def _fit(target: Tensor, steps: int = 400) -> Tensor:
    """Atoms [32] that minimise the loss against samples [S], at the scale of the samples."""
    scale = float(target.std())
    atoms = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([atoms], lr=0.1 * scale)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.1 * scale * (1 - step / steps)
        optimiser.zero_grad()
        quantile_huber_loss(atoms, target).backward()
        optimiser.step()
    return atoms.detach()


def _expectile(target: Tensor, level: float) -> float:
    low, high = float(target.min()), float(target.max())
    for _ in range(40):
        middle = torch.tensor((low + high) / 2, dtype=target.dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(expectile_loss(target - middle, level), middle)
        at = float(middle.detach())
        low, high = (low, at) if slope > 0 else (at, high)
    return (low + high) / 2


@pytest.mark.parametrize("kappa", [1.0, 0.3])
@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 2, 6)])
def test_value_and_gradient_equal_autograd_of_the_definition(shape: tuple[int, ...], kappa: float) -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    target = 2 * torch.randn((*shape[:-1], 9), generator=generator, dtype=torch.float64)
    ours, definition = quantile_huber_loss(atoms, target, kappa), _naive(atoms, target, kappa)
    torch.testing.assert_close(ours, definition)
    (gradient,) = torch.autograd.grad(3.0 * ours, atoms)
    (expected,) = torch.autograd.grad(3.0 * definition, atoms)
    torch.testing.assert_close(gradient, expected)


def test_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    atoms = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randn(3, 2, 7, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: quantile_huber_loss(a, target), (atoms,))


def test_sums_over_predicted_and_averages_over_target_atoms_and_batch() -> None:
    atoms, target = torch.zeros(4), torch.full((3,), 10.0)
    expected = (0.125 + 0.375 + 0.625 + 0.875) * 9.5
    assert float(quantile_huber_loss(atoms, target)) == pytest.approx(expected)
    assert float(quantile_huber_loss(atoms, target.repeat(5))) == pytest.approx(expected)
    both = quantile_huber_loss(atoms.expand(7, 2, 4), target.expand(7, 2, 3))
    assert float(both) == pytest.approx(expected)


@pytest.mark.parametrize(("scale", "error"), [(3.04, 0.16), (10.0, 0.05), (100.0, 0.006)])
def test_recovers_known_quantiles_from_ten_kappa_on(scale: float, error: float) -> None:
    """scale N(0, 1) has a 5-95 % range of 3.29 scale: 10, 33 and 329 kappa."""
    fitted = _fit(scale * NORMAL) / scale
    wanted = torch.tensor(norm.ppf(midpoints(32).double().numpy()))
    assert (fitted - wanted).abs().max() < error
    assert (fitted - wanted)[8:24].abs().max() < error / 2


def test_fits_expectiles_at_a_tenth_of_kappa() -> None:
    """Why a critic's atoms need a range of 10 kappa: at .1 N(0, 1) every error lies in the quadratic zone."""
    fitted = _fit(0.1 * NORMAL) / 0.1
    expectiles = torch.tensor([_expectile(NORMAL, float(tau)) for tau in midpoints(32)])
    quantiles = torch.tensor(norm.ppf(midpoints(32).double().numpy()))
    assert (fitted - expectiles).abs().max() < 0.02
    assert (fitted - quantiles).abs().max() > 0.4


def test_levels_are_midpoints() -> None:
    torch.testing.assert_close(midpoints(4), torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_cvar_of_known_distributions_with_a_fractional_last_atom() -> None:
    levels = midpoints(32).double()
    shuffled = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    normal = torch.tensor(norm.ppf(levels.numpy()))[shuffled]
    both = cvar(torch.stack([normal, levels[shuffled]]), 0.05)
    assert both.shape == (2,)
    assert float(both[0]) == pytest.approx(-1.975, abs=5e-4)
    assert float(both[1]) == pytest.approx(0.027344, abs=1e-6)


@pytest.mark.parametrize(("level", "expected"), [(1.0, 2.5), (0.25, 1.0), (0.5, 1.5), (0.1, 1.0), (0.375, 4 / 3)])
def test_cvar_by_hand(level: float, expected: float) -> None:
    assert float(cvar(torch.tensor([3.0, 1.0, 4.0, 2.0]), level)) == pytest.approx(expected)


def test_lower_mean_takes_one_whole_distribution() -> None:
    """Neither the element-wise minimum nor the truncated mixture of TQC."""
    atoms = torch.tensor([[-4.0, 10.0], [1.0, 3.0]])
    taken = lower_mean(atoms)
    assert taken.tolist() == [1.0, 3.0]
    assert atoms.sort(-1).values.amin(0).tolist() == [-4.0, 3.0]
    assert atoms.flatten().sort().values[:2].tolist() == [-4.0, 1.0]


def test_lower_mean_chooses_for_every_state_and_action() -> None:
    atoms = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    taken = lower_mean(atoms)
    assert taken.shape == (3, 4, 5)
    for b in range(3):
        for a in range(4):
            first, second = atoms[b, a]
            assert torch.equal(taken[b, a], first if first.mean() <= second.mean() else second)


def test_truncated_mixture_by_hand() -> None:
    """Both twins' atoms are one distribution: all three of the lowest may be of one of them."""
    atoms = torch.tensor([[3.0, -4.0, 10.0], [5.0, 4.0, 20.0]])
    assert truncated_mixture(atoms, 0).tolist() == [-4.0, 3.0, 4.0, 5.0, 10.0, 20.0]
    assert truncated_mixture(atoms, 1).tolist() == [-4.0, 3.0, 4.0, 5.0]
    assert truncated_mixture(atoms, 2).tolist() == [-4.0, 3.0]
    assert lower_mean(atoms).tolist() == [3.0, -4.0, 10.0]
    assert truncated_mixture(atoms.expand(7, 4, 2, 3), 1).shape == (7, 4, 4)


@pytest.mark.parametrize("dropped", [0, 200, 1000])
def test_truncation_of_two_normal_critics_leaves_the_mean_below_a_quantile(dropped: int) -> None:
    """E[z | z < q_p] = -phi(q_p) / p of N(0, 1), p = 1 - dropped / N."""
    twins = torch.stack([NORMAL, NORMAL.flip(0)])
    kept = 1 - dropped / 2000
    expected = -norm.pdf(norm.ppf(kept)) / kept
    assert float(truncated_mixture(twins, dropped).mean()) == pytest.approx(expected, abs=1e-3)


def test_the_zone_is_a_quarter_of_the_spread() -> None:
    """Value and gradient are those of the plain loss at kappa = s_Q / 4."""
    generator = torch.Generator().manual_seed(2)
    atoms = (3 * torch.randn(5, 2, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    target = torch.randn(5, 2, 8, generator=generator, dtype=torch.float64)
    kappa = float(atoms.detach().std(-1, correction=0).mean()) / 4
    ours, expected = quantile_loss(atoms, target, atom_spread(atoms)), quantile_huber_loss(atoms, target, kappa)
    torch.testing.assert_close(ours, expected)
    (gradient,), (wanted,) = torch.autograd.grad(ours, atoms), torch.autograd.grad(expected, atoms)
    torch.testing.assert_close(gradient, wanted)


def test_the_tail_of_fitted_atoms_is_that_of_the_distribution() -> None:
    """CVaR of the worst quarter of N(0, 1): 32 midpoint quantiles have -1.26; with kappa 1 it came out at -.98."""
    found: list[float] = []
    losses = (lambda a, t: quantile_loss(a, t, atom_spread(a)), quantile_huber_loss)
    for loss in losses:
        atoms = torch.linspace(-1, 1, 32, dtype=torch.float64).requires_grad_()
        optimiser = torch.optim.Adam([atoms], lr=0.05)
        for step in range(300):
            optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
            optimiser.zero_grad()
            loss(atoms, NORMAL.double()).backward()
            optimiser.step()
        found.append(float(cvar(atoms.detach(), 0.25)))
    assert found[0] == pytest.approx(float(norm.ppf((np.arange(8) + 0.5) / 32).mean()), abs=0.1)
    assert found[1] > -1.05


def test_atoms_that_have_not_spread_still_learn() -> None:
    atoms = torch.zeros(2, 4, requires_grad=True)
    quantile_loss(atoms, torch.ones(2, 4), atom_spread(atoms)).backward()
    assert atoms.grad is not None
    assert (atoms.grad < 0).all()
