"""Section `env`: where prices come from, and the rules under which a portfolio of them is kept."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from finflow.errors import ConfigError
from finflow.schema.fields import Count, Day, NonNegative, Positive, Schema, Text


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
    min_cash: Annotated[float, Field(ge=0, lt=1)]
    no_trade_band: NonNegative
    max_turnover: Positive | None


class Synthetic(Schema):
    """A regime-switching market with a planted signal of information coefficient `ic` (0: none)."""

    days: Annotated[int, Field(ge=1300)]
    assets: Annotated[int, Field(ge=2)]
    ic: Annotated[float, Field(ge=0, lt=1)]
    persistence: Annotated[float, Field(ge=0, lt=1)]
    seed: int


class Env(Schema):
    """Where prices come from, and how a portfolio of them is accounted for."""

    source: Literal["sp500", "yahoo", "csv", "synthetic"]
    path: Text | None
    tickers: Annotated[list[Text], Field(min_length=2), AfterValidator(_each_once)] | None
    start: Day | None
    end: Day | None
    signals: Text | None
    signals_lag: Annotated[int, Field(ge=0)]
    snapshot: Text | None
    delist_return: Annotated[float, Field(ge=-1)]
    min_history: Annotated[int, Field(ge=22)]
    stale_run: Annotated[int, Field(ge=2)]
    split_jump: Annotated[float, Field(gt=0)]
    cost_bps: NonNegative
    slippage_bps: NonNegative
    cash_yield: float | Annotated[str, Field(min_length=1)]  # not `Text`: 0 is a number here
    benchmark: Annotated[str, BeforeValidator(_benchmark), Field(min_length=1)]
    rebalance: Literal["daily", "weekly", "monthly"]
    episode_days: Annotated[int, Field(ge=21)]
    parallel: Count
    limits: Limits
    synthetic: Synthetic | None

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        """Keys that belong to one source are asked for there and refused elsewhere."""
        if self.source == "csv" and self.path is None:
            raise ConfigError("env.path: env=csv needs the file of prices; write env.path=prices.csv")
        if self.source != "csv" and self.path is not None:
            raise ConfigError(f"env.path={self.path}: env={self.source} does not read it; add env=csv or leave it out")
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
