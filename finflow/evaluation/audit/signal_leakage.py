"""Audit of a user's signals: one that predicts the next return too well was made with future data."""

import numpy as np
from scipy.stats import rankdata

from finflow.data.market import TRADABLE, Fold, Market
from finflow.data.prices import Prices
from finflow.evaluation.audit.findings import Difference, Findings

CHECK = "signals' foresight"
TOO_GOOD = 0.25
"""Suspicious rank correlation with the next day's return; honest daily signals have a tenth of it."""
LEAST = 500
"""Fewest cells for a correlation: three standard deviations of chance are below .15 then."""


def compare_foresight(findings: Findings, prices: Prices, market: Market, fold: Fold, names: list[str]) -> None:
    """Correlate each signal of `names`, as it is used, with the next day's return, on train rows alone.

    No perturbation of files shows what a user did before writing them: standardised by the whole history, say, or
    dated a day too early.
    """
    days = np.asarray(fold.train.decisions)
    tradable = market.status[days, :-1] == TRADABLE
    following = market.returns[days + 1, :-1]
    for name in names:
        values = prices.signals[name][days]
        known = tradable & np.isfinite(values)
        findings.count(CHECK)
        if known.sum() < LEAST:
            continue
        correlation = float(np.corrcoef(rankdata(values[known]), rankdata(following[known]))[0, 1])
        if abs(correlation) > TOO_GOOD:
            cause = f"the next day's return does (rank correlation {correlation:.2f} on train days)"
            findings.add(CHECK, Difference(f"signal {name}", str(market.dates[days[0]]), cause))
