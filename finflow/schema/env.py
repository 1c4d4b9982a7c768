"""Section `env`: where prices come from, and the rules under which a portfolio of them is kept."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from finflow.errors import ConfigError
from finflow.schema.fields import Count, Day, Discount, Fraction, NonNegative, Positive, Schema, Text
from finflow.schema.roles import Added, ReadBy, Role, Was

OWN_SOURCES = ("sp500", "yahoo", "csv", "synthetic")
_WITHOUT_FILES = tuple(source for source in OWN_SOURCES if source != "csv")
"""Sources that read no `env.path`; those of plugins may."""

LEAST_HISTORY = 22
"""Trading days: a month's returns."""


def _benchmark(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("should be equal_weight or the path of a CSV with a level per date")
    return value


def _each_once(tickers: list[str]) -> list[str]:
    folded = [ticker.casefold() for ticker in tickers]
    twice = next((ticker for i, ticker in enumerate(tickers) if folded[i] in folded[:i]), None)
    if twice is not None:
        raise ValueError(f"{twice} stands twice; keep one")
    return tickers


class Limits(Schema):
    """Rules of a desk, applied by the ledger; `null` switches a rule off."""

    max_weight: Annotated[float, Field(gt=0, le=1)] | None
    """Cap of a single name; what is above goes to cash."""
    min_cash: Annotated[float, Field(ge=0, lt=1)]
    """Least cash after a decision."""
    no_trade_band: NonNegative
    """A decision whose two-way turnover is below it is not executed."""
    max_turnover: Positive | None
    """Most two-way turnover of one decision; beyond it the way to the target is cut short."""


class Regimes(Schema):
    """Thresholds of the labels that days get (see `data/market_features.py`): volatility of 1/N over 21 days beside
    its own past, and the loss of 1/N since its peak.
    """

    stable: Discount
    """Quantile of past volatility up to which a day is stable."""
    enter_volatile: Discount
    """Quantile of past volatility at which volatile begins."""
    leave_volatile: Positive
    """Multiple of the median of past volatility below which volatile ends."""
    enter_crisis: Discount
    """Loss beyond which crisis begins."""
    leave_crisis: Discount
    """Loss below which crisis ends."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for low, high in (("stable", "enter_volatile"), ("leave_crisis", "enter_crisis")):
            below, above = getattr(self, low), getattr(self, high)
            if below > above:
                key = f"env.regimes.{low}"
                raise ConfigError(f"{key}={below:g}: above env.regimes.{high}={above:g}; set one of them otherwise")
        return self


class Synthetic(Schema):
    """A regime-switching market with a planted signal of information coefficient `ic` (0: none)."""

    signal: Literal["linear", "nonlinear", "regime"]
    """How the next day's own return depends on the signal s: linear, as s; nonlinear, as s^2, of which no linear
    regression finds anything; regime, as s on days labelled volatile or crisis and as -s on others."""

    days: Annotated[int, Field(ge=1300)]
    """Business days."""
    assets: Annotated[int, Field(ge=2)]
    """Names."""
    ic: Annotated[float, Field(ge=0, lt=1)]
    """Correlation of what the signal says, as `signal` has it, with the next day's own return; 0: no signal."""
    persistence: Annotated[float, Field(ge=0, lt=1)]
    """Autocorrelation of the signal from day to day."""
    seed: int
    """Which market is drawn; apart from the run's own seed."""


class Format(Schema):
    """How a file of prices or volumes is written, of env=csv: said, never guessed."""

    separator: Literal["comma", "semicolon", "tab", "pipe"]
    """What stands between two cells."""
    decimal: Literal["point", "comma"]
    """What stands before the decimals."""
    thousands: Literal["none", "comma", "point", "space", "apostrophe"]
    """What stands between thousands."""
    date: Literal["YYYY-MM-DD", "DD/MM/YYYY", "MM/DD/YYYY", "DD.MM.YYYY", "DD-MM-YYYY", "YYYY/MM/DD", "YYYYMMDD"]
    """How a date is written."""

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if self.decimal == self.thousands:
            raise ConfigError(f"env.format.thousands={self.thousands}: the decimal mark too; set one of them otherwise")
        if self.separator == "comma" and self.decimal == "comma":
            raise ConfigError("env.format.decimal=comma: separates the cells too; add env.format.separator=semicolon")
        return self


PLAIN = Format(separator="comma", decimal="point", thousands="none", date="YYYY-MM-DD")
"""What is read unasked."""


class Env(Schema):
    """Where prices come from, and how a portfolio of them is accounted for."""

    source: Annotated[Literal["sp500", "yahoo", "csv", "synthetic"] | Text, Role.DATA]
    """Where prices come from, set by the option of `env`; or a source of a plugin."""
    path: Annotated[Text | None, Role.FILE]
    """File or folder of prices, of env=csv: see docs/data.md for what is read; or what a plugin's source reads."""
    volume: Annotated[Text | None, Role.FILE]
    """File of volumes laid out as the prices are, of env=csv, where the prices come without."""
    format: Annotated[Format, Role.FILE]
    calendar: Annotated[Literal["all", "common"], Role.FILE]
    """Days that are used: all, each of which needs every live name's price, or those that have it."""
    lost_rows: Annotated[Fraction, Role.ENVIRONMENT]
    """Share of the rows that env.calendar=common may leave out."""
    tickers: Annotated[Annotated[list[Text], Field(min_length=2), AfterValidator(_each_once)] | None, Role.DATA]
    """Names to use, in that order; null: all of the source's."""
    start: Annotated[Day | None, Role.DATA]
    """First day; of Yahoo the first that is asked for."""
    end: Annotated[Day | None, Role.DATA, ReadBy("pretrain", "finetune", "collect", "look", "decide", "judge")]
    """Last day that is used; null: the last there is, of Yahoo yesterday."""
    signals: Annotated[Text | None, Role.FILE]
    """Your own signals: a CSV laid out as prices are, or a folder of them."""
    features: Annotated[Annotated[list[Text], AfterValidator(_each_once)], Role.MARKET, Added()]
    """Features of plugins, beside FinFlow's own; every expert sees them."""
    signals_lag: Annotated[int, Field(ge=0), Role.DATA]
    """Days from a signal's date to the close that may use it; 0: known before that day's close."""
    snapshot: Annotated[Text | None, Role.FILE]
    """File that freezes the data: made where it is missing, read where it is there."""
    periods_per_year: Annotated[Literal["auto"] | Annotated[int, Field(ge=12, le=366)], Role.FILE]
    """Rows of a year, by which figures are annualised and windows counted; auto: as the dates have it."""
    delist_return: Annotated[float, Field(ge=-1), Role.MARKET]
    """Return of the day after a name's last price."""
    min_history: Annotated[int, Field(ge=LEAST_HISTORY), Role.MARKET]
    """Priced trading days that a name needs before it may be traded (252 a year, on any calendar)."""
    stale_run: Annotated[int, Field(ge=2), Role.MARKET]
    """Equal closes in a row from which a name counts as frozen."""
    split_jump: Annotated[float, Field(gt=0), Role.ENVIRONMENT]
    """Return of one day, as a fraction, that is warned of whatever the name's volatility."""
    cost_bps: Annotated[NonNegative, Role.ENVIRONMENT]
    """Commission, basis points of what is traded."""
    slippage_bps: Annotated[NonNegative, Role.ENVIRONMENT]
    """Slippage, basis points of what is traded."""
    cash_yield: Annotated[float | Annotated[str, Field(min_length=1)], Role.MARKET]  # not `Text`: 0 is a number here
    """What cash earns: a yearly rate, or the path of a CSV with a yearly rate a date."""
    benchmark: Annotated[str, BeforeValidator(_benchmark), Field(min_length=1), Role.MARKET]
    """What the reward is measured against: equal_weight, or the path of a CSV with a level a date."""
    rebalance: Annotated[Literal["daily", "weekly", "monthly"], Role.MARKET]
    """How often the policy decides."""
    episode_days: Annotated[int, Field(ge=21), Role.ENVIRONMENT]
    """Trading days of a training episode (252 a year, on any calendar)."""
    num_envs: Annotated[Count, Role.ENVIRONMENT, Was("parallel")]
    """Episodes that are lived through side by side."""
    limits: Annotated[Limits, Role.ENVIRONMENT]
    regimes: Annotated[Regimes, Role.MARKET]
    synthetic: Annotated[Synthetic | None, Role.DATA]

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        """Keys that belong to one source are asked for there and refused elsewhere."""
        if self.source == "csv" and self.path is None:
            raise ConfigError(f"env.path: env={self.source} needs the file of prices; write env.path=prices.csv")
        if self.source in _WITHOUT_FILES and self.volume is not None:
            raise ConfigError(f"env.volume={self.volume}: env={self.source} has its own; add env=csv or leave it out")
        if self.source in _WITHOUT_FILES and self.path is not None:
            raise ConfigError(f"env.path={self.path}: env={self.source} does not read it; add env=csv or leave it out")
        if self.source in _WITHOUT_FILES and self.format != PLAIN:
            raise ConfigError(f"env.format: env={self.source} reads no file of prices; add env=csv or leave it out")
        if self.source in ("sp500", "synthetic") and self.calendar != "all":
            raise ConfigError(f"env.calendar={self.calendar}: env={self.source} has one calendar; leave it out")
        for key in ("tickers", "start"):
            if self.source == "yahoo" and getattr(self, key) is None:
                raise ConfigError(f"env.{key}=null: Yahoo has to be asked for something; leave it out or give a value")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ConfigError(f"env.start={self.start}: not before env.end={self.end}; set one of them otherwise")
        if (self.source == "synthetic") != (self.synthetic is not None):
            raise ConfigError("env.synthetic: belongs to env=synthetic alone; choose that env or leave its keys out")
        return self

    @property
    def cost_rate(self) -> float:
        """Cost of a traded unit of notional, as a fraction."""
        return (self.cost_bps + self.slippage_bps) / 1e4
