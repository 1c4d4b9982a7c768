"""Power of the Sharpe ratio test: the difference that a window can detect (Jobson & Korkie 1981, Memmel 2003).

For independent normal days the difference of two paired Sharpe ratios has the variance

    (2 (1 - rho) + (s1^2 + s2^2 - 2 s1 s2 rho^2) / 2) / R,    s the ratios per day,

the delta method of `statistics` in closed form. It ignores autocorrelation and fat tails, which increase it.
"""

import math

from scipy.stats import norm

from finflow.data.calendar import TRADING_YEAR


def detectable_difference(
    sharpe: float,
    correlation: float,
    days: int,
    *,
    power: float = 0.8,
    level: float = 0.05,
    sides: int = 2,
    year: int = TRADING_YEAR,
) -> float:
    """Smallest gain in annualised Sharpe ratio that a test at `level` finds with probability `power`.

    The gain d solves d = (z(1 - level / sides) + z(power)) * error(sharpe + d, sharpe), the square root of the
    variance above: a quadratic equation. Chance findings on the other side, which a two-sided test also has, are left
    out.

    Parameters
    ----------
    sharpe : the opponent's annualised Sharpe ratio.
    correlation : of the two series of daily returns.
    days : length of the window.
    sides : 2 as in the verdict, whose BEATS needs the two-sided 95 % interval above 0; 1 for a one-sided test.
    year : rows a year.

    Returns
    -------
    float
        Annualised; inf where no gain is enough, since the error grows with it (a handful of days).
    """
    quantiles = float(norm.ppf(1 - level / sides) + norm.ppf(power))
    share = quantiles**2 / days
    daily = sharpe / math.sqrt(year)
    # a d^2 - 2 b d - c = 0, from the variance above with s1 = s2 + d.
    a = 1 - share / 2
    b = share * daily * (1 - correlation**2) / 2
    c = share * (2 * (1 - correlation) + daily**2 * (1 - correlation**2))
    if a <= 0:
        return math.inf
    return math.sqrt(year) * (b + math.sqrt(b * b + a * c)) / a
