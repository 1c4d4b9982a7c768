"""Results of an audit: arrays compared to the bit, and the first name and date of a difference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """One value that changed although none of its permitted inputs did.

    Attributes
    ----------
    subject : what, e.g. "feature momentum_21".
    date : ISO day of the first value that differs; for a fitted constant, the last day that it may use.
    cause : what was done to the data, e.g. "prices after 2017-05-03 are scaled".
    """

    subject: str
    date: str
    cause: str

    def line(self) -> str:
        """In words."""
        return f"{self.subject} on {self.date} changes when {self.cause}"


@dataclass(frozen=True)
class Check:
    """One row of the audit's table: what was compared, how often, and each subject that differed, once."""

    name: str
    comparisons: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Watched:
    """An array whose past must not depend on its future.

    Attributes
    ----------
    check : row of the table that it belongs to.
    values : [T, ...].
    noun : what one of `subjects` is, e.g. "feature"; alone, the name of the whole array.
    subjects : names along `axis`; none for an array that is one subject.
    """

    check: str
    values: NDArray[Any]
    noun: str
    subjects: tuple[str, ...] = ()
    axis: int = -1

    def named(self, column: int) -> str:
        """Subject of `column`."""
        return f"{self.noun} {self.subjects[column]}" if self.subjects else self.noun


class Findings:
    """Collects comparisons; of each subject the difference with the earliest date stays."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._found: dict[str, dict[str, Difference]] = {}

    def compare(
        self, before: Watched, after: NDArray[Any], rows: int, dates: NDArray[np.datetime64], cause: str
    ) -> None:
        """Compare the first `rows` rows of an array before and after a change; their dates are in `dates`."""
        self.count(before.check)
        for column, row in first_differences(before, after, rows).items():
            self.add(before.check, Difference(before.named(column), str(dates[row]), cause))

    def count(self, check: str) -> None:
        """One more comparison of `check`."""
        self._counts[check] = self._counts.get(check, 0) + 1
        self._found.setdefault(check, {})

    def add(self, check: str, difference: Difference) -> None:
        """Note a difference."""
        known = self._found[check].get(difference.subject)
        if known is None or difference.date < known.date:
            self._found[check][difference.subject] = difference

    def checks(self) -> tuple[Check, ...]:
        """A row for each check, in the order in which they were first made."""
        return tuple(Check(name, count, tuple(self._found[name].values())) for name, count in self._counts.items())


def first_differences(before: Watched, after: NDArray[Any], rows: int) -> dict[int, int]:
    """Column (along the axis of subjects) -> first of the `rows` rows that is not the same to the bit."""
    ours, theirs = before.values[:rows], after[:rows]
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return {0: 0}
    if ours.tobytes() == theirs.tobytes():
        return {}
    unequal = _bits(ours) != _bits(theirs)
    if before.subjects:
        unequal = np.moveaxis(unequal, before.axis, -1)
    unequal = unequal.reshape(rows, -1, len(before.subjects) or 1).any(axis=1)
    return {int(column): int(unequal[:, column].argmax()) for column in np.flatnonzero(unequal.any(axis=0))}


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """The same array as whole numbers: NaN equals itself, and -0 is not 0."""
    whole = np.ascontiguousarray(values)
    return whole.view(f"u{whole.dtype.itemsize}")
