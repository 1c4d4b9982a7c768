"""Who may be traded when, what a return is, and what a user is told about the prices."""

import numpy as np
import pytest

from finflow.data.market import ABSENT, FROZEN, TRADABLE, Market
from finflow.data.prices import Prices, equal_run, price_warnings, simple_returns, trading
from finflow.schema.sections import Env

NAN = np.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def test_equal_run_counts_the_closes_up_to_each_row() -> None:
    close = column(NAN, 1, 1, 1, 2, 2, NAN, NAN, 2)
    assert equal_run(close)[:, 0].tolist() == [0, 1, 2, 3, 1, 2, 0, 0, 1]


def test_status_by_hand() -> None:
    # flat until row 3, priced days since the first move: row 4 is 1, row 5 is 2, ...; rows 7-9 are a stale run of 3
    close = column(NAN, 5, 5, 5, 6, 7, 8, 9, 9, 9, 10, NAN)
    status = trading(close, stale_run=3, min_history=3).status[:, 0]
    f, t, a = FROZEN, TRADABLE, ABSENT
    assert status.tolist() == [a, f, f, f, f, f, t, t, t, f, t, a]


def test_a_short_flat_start_is_no_history() -> None:
    """A back-filled stretch is untradable from its first day, when no run of equal closes is long yet."""
    close = np.concatenate([np.full(60, 5.0), 5 + np.arange(1, 41)])[:, None]
    state = trading(close, stale_run=10, min_history=30)
    assert not state.live[:60].any()
    assert (state.status[:89] == FROZEN).all()
    assert (state.status[89:] == TRADABLE).all()


def test_a_name_that_never_moves_is_never_tradable() -> None:
    assert (trading(np.full((600, 1), 3.0), 10, 22).status == FROZEN).all()


def test_returns_by_hand() -> None:
    close = column(NAN, 2, 3, 3, NAN, NAN)
    assert simple_returns(close, -0.4)[:, 0].tolist() == [0, 0, 0.5, 0, -0.4, 0]
    assert simple_returns(column(1, 2, 3), -0.4)[:, 0].tolist() == [0, 1, 0.5], "a last price in the last row"


def test_listing_market(listing: Market, listing_prices: Prices) -> None:
    assert (listing.status[:752, 1] != TRADABLE).all(), "251 rows after the first move on row 501"
    assert (listing.status[752:, 1] == TRADABLE).all()
    assert (listing.status[:300, 3] == ABSENT).all()
    assert listing.status[552, 3] == TRADABLE
    assert listing.status[551, 3] == FROZEN
    assert (listing.status[1101:, 2] == ABSENT).all()
    assert (listing.status[:, -1] == TRADABLE).all()
    np.testing.assert_array_equal(listing.close, listing_prices.close)


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_delisting_return_is_booked_once(loss: float, listing_prices: Prices, small_env: Env) -> None:
    from finflow.data.build import market_of

    market = market_of(listing_prices, small_env.model_copy(update={"delist_return": loss}))
    assert market.returns[1101, 2] == loss
    assert (market.returns[1102:, 2] == 0).all()
    held = [0, 2, 3, 4, 1]
    assert market.benchmark[1101] == pytest.approx(market.returns[1101, held].mean())


def test_warnings_name_listing_delisting_and_stale_stretch(listing: Market) -> None:
    dates = listing.dates
    assert listing.warnings[0] == (
        f"FLAT: equal closes from {dates[0]} to {dates[500]} (501 rows); masked as untradable"
    )
    assert listing.warnings[1] == (
        f"GONE: last price on {dates[1100]}, blank to the end; treated as delisted at a return of 0"
    )
    assert listing.warnings[2] == f"LATE: no price before {dates[300]}; untradable until then"
    assert len(listing.warnings) == 3
    assert all("\n" not in line for line in listing.warnings)


def test_jumps_either_way_are_found(small_env: Env) -> None:
    days = np.arange(np.datetime64("2020-01-01"), np.datetime64("2020-01-07"))
    close = np.stack([[10, 11, 5.4, 5.5, 5.6, 5.7], [10, 11, 22.1, 22, 21, 20], [10, 15, 8, 15, 8, 15]], axis=1)
    lines = price_warnings(Prices(days, ("FALL", "RISE", "WILD"), close), small_env)
    assert [line.split(":")[0] for line in lines] == ["FALL", "RISE"]
    assert "-51 % on 2020-01-03" in lines[0]
    assert "+101 % on 2020-01-03" in lines[1]
    everything = small_env.model_copy(update={"split_jump": 2.0})
    assert price_warnings(Prices(days, ("FALL", "RISE", "WILD"), close), everything) == ()


def test_sp500_warnings(sp500: Market) -> None:
    """Its oddities were vetted, and stand in docs/data.md."""
    assert sp500.warnings == ()


def test_sp500_stale_name_is_not_traded(sp500: Market) -> None:
    rrc = sp500.assets.index("RRC")
    first_move = int(np.searchsorted(sp500.dates, np.datetime64("1990-04-10")))
    assert (sp500.status[: first_move + 251, rrc] == FROZEN).all()
    runs = equal_run(sp500.close)[:, rrc]
    assert (sp500.status[runs >= 10, rrc] == FROZEN).all()
    assert (sp500.status[1265:, :] == TRADABLE).all(), "every name from 1995 on"
