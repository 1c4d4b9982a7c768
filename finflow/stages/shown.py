"""How results show themselves: `repr` is a line, and a notebook adds a small table."""

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence

import pandas as pd


class Shown(ABC):
    """Base of results."""

    @abstractmethod
    def line(self) -> str:
        """What it is, in one line."""

    def frame(self) -> pd.DataFrame | None:
        """The table that a notebook shows; None where the line is all."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.line()})"

    def _repr_html_(self) -> str:
        frame, said = self.frame(), f"<p><b>{type(self).__name__}</b> {html.escape(self.line())}</p>"
        return said if frame is None else said + frame.to_html(float_format="{:.3g}".format, na_rep="–", border=0)


def table_of(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> pd.DataFrame:
    """A table whose first column is its index."""
    return pd.DataFrame(rows, columns=list(columns)).set_index(columns[0])
