"""Exact batched solver behind the long-only optimisers: a strictly convex QP over the non-negative orthant.

Minimum variance, maximum diversification and long-only Kelly are all `min 1/2 y'Ay - b'y, y >= 0` after a change of
variables, and on a market's size a whole history of them takes a handful of batched linear solves.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TOLERANCE = 1e-11
"""Violation of a sign, relative to the largest entry, that counts as rounding."""

FULL_EXCHANGES = 3
"""Exchanges of all infeasible names without progress before falling back to one at a time."""


FEW = 64
"""Names up to which a whole system is solved at once, not that of the names held alone."""


def nonnegative_qp(a: Floats, b: Floats, mask: Mask, plane: Floats | None = None) -> Floats:
    """Minimise `1/2 y'Ay - b'y` over y >= 0, y = 0 outside the mask, and `plane'y = 1` if given, for each row.

    Block principal pivoting (Judice & Pires 1994; Kim & Park 2011): guess the support, solve the linear system on
    it, exchange the names whose sign is wrong; where that stalls, exchange only the last such name, which is
    Murty's rule and ends for any positive definite A. The answer solves the KKT conditions to rounding.

    The plane changes nothing in that: on it, A + c ss' - bs' - sb' with s = `plane` has the same minimiser, is
    positive definite for large c, and leads through the same supports; the bordered system is its stable form.

    Parameters
    ----------
    a : [B, d, d] symmetric positive definite on the mask.
    b : [B, d].
    mask : [B, d] names that may be held; at least one in each row if there is a plane.
    plane : [B, d] positive, or None.

    Returns
    -------
    [B, d] float64.
    """
    d = b.shape[1]
    y = np.zeros_like(b)
    open_rows = np.arange(len(b))
    support = mask.copy() if d <= FEW else _likely(a, b, mask)
    fewest = np.full(len(b), d + 1)
    patience = np.full(len(b), FULL_EXCHANGES)
    for _ in range(100 + 10 * d * d):
        if not len(open_rows):
            return y
        border = None if plane is None else plane[open_rows]
        solution, wrong = _guess(a, open_rows, b[open_rows], mask[open_rows], support[open_rows], border)
        count = wrong.sum(axis=1)
        y[open_rows[count == 0]] = solution[count == 0]
        open_rows, wrong, count = open_rows[count > 0], wrong[count > 0], count[count > 0]
        better = count < fewest[open_rows]
        patience[open_rows] = np.where(better, FULL_EXCHANGES, patience[open_rows] - 1)
        fewest[open_rows] = np.minimum(fewest[open_rows], count)
        last = d - 1 - np.argmax(wrong[:, ::-1], axis=1)
        one = wrong & (np.arange(d) == last[:, None])
        support[open_rows] ^= np.where((patience[open_rows] >= 0)[:, None], wrong, one)
    raise AssertionError("principal pivoting ends for a positive definite matrix")


def _likely(a: Floats, b: Floats, mask: Mask) -> Mask:
    """An eighth of the names [B, d]: those that gain most from where the best multiple of b itself stands."""
    b = np.where(mask, b, 0.0)
    start = np.maximum(b, 0.0)
    slope = np.where(mask, (start[:, None, :] @ np.where(mask[:, :, None], a, 0.0))[:, 0, :], 0.0)
    height, curve = ((start * each).sum(axis=1, keepdims=True) for each in (b, slope))
    gain = np.where(mask, b - slope * np.divide(height, curve, out=np.zeros_like(curve), where=curve > 0), -np.inf)
    return mask & (gain >= -np.partition(-gain, b.shape[1] // 8, axis=1)[:, b.shape[1] // 8, None])


def _guess(
    a: Floats, rows: NDArray[np.intp], b: Floats, mask: Mask, support: Mask, plane: Floats | None
) -> tuple[Floats, Mask]:
    """Solution [B, d] if `support` is the right one, and the names [B, d] that show it is not.

    Only the rows of `a` [., d, d] are read that belong to some name of a support.
    """
    d = b.shape[1]
    most = d if d <= FEW else max(int(support.sum(axis=1).max()), 1)
    names = np.sort(np.argsort(~support, axis=1, kind="stable")[:, :most], axis=1)
    held = np.take_along_axis(support, names, axis=1)
    reach = a[rows[:, None], names]
    pair = held[:, :, None] & held[:, None, :]
    system = np.where(pair, np.take_along_axis(reach, names[:, None, :], axis=2), np.eye(most))
    target = np.where(held, np.take_along_axis(b, names, axis=1), 0.0)
    if plane is None:
        solved, pull = np.linalg.solve(system, target[:, :, None])[:, :, 0], b
    else:
        solved, price = _bordered(system, target, np.where(held, np.take_along_axis(plane, names, axis=1), 0.0))
        pull = b - price[:, None] * plane
    solved = np.where(held, solved, 0.0)
    y = np.zeros_like(b)
    np.put_along_axis(y, names, solved, axis=1)
    slope = (solved[:, None, :] @ np.where(held[:, :, None], reach, 0.0))[:, 0, :]
    rounding = TOLERANCE * np.where(mask, np.abs(b) + np.abs(pull - b), 0.0).max(axis=1, keepdims=True)
    negative = support & (y < -TOLERANCE * np.abs(y).max(axis=1, keepdims=True))
    missing = mask & ~support & (slope - pull < -rounding)
    return np.maximum(y, 0.0), negative | missing


def _bordered(system: Floats, target: Floats, plane: Floats) -> tuple[Floats, Floats]:
    """Solve `system y + price plane = target`, `plane'y = 1`: y [B, d] and the price [B].

    The plane is 0 outside a support that is never empty: on it some y is positive, so exchanges leave a name.
    """
    size = plane.max(axis=1)
    unit = plane / size[:, None]
    matrix = np.zeros((len(system), system.shape[1] + 1, system.shape[1] + 1))
    matrix[:, :-1, :-1] = system
    matrix[:, :-1, -1] = matrix[:, -1, :-1] = unit
    right = np.concatenate([target, 1 / size[:, None]], axis=1)
    solution = np.asarray(np.linalg.solve(matrix, right[:, :, None])[:, :, 0], dtype=np.float64)
    return solution[:, :-1], solution[:, -1] / size
