"""A card: consistent within itself, the same whenever it is made, and its page says what its data say."""

import json
import re
from dataclasses import asdict, replace
from html import unescape

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data import features
from finflow.data.market import NO_LABEL, REGIMES
from finflow.explanations.card import Card, Explainer
from finflow.explanations.counterfactual import Flip, Move
from finflow.explanations.decision_trace import DecisionTrace
from finflow.report.card import render_card
from finflow.report.card_parts import key_figures, regime_gauges, trade_table, value_axis
from finflow.report.card_text import flip_says, headline, plain_name
from finflow.stages.prepare import Prepared

from .conftest import MARKET, MakeScene, MakeSubject


@pytest.fixture(scope="module")
def explainer(scene: DecisionTrace) -> Explainer:
    env = load("finetune", MARKET).env
    gauges = features.regime_gauges(scene.subject.market.index, env.regimes)
    return Explainer(scene, "validation", gauges, {"run": "finetune/x/y", "fold": "auto"}, 0)


@pytest.fixture(scope="module")
def card(explainer: Explainer) -> Card:
    return explainer.card(explainer.largest(1)[0])


def test_a_card_is_consistent(card: Card, scene: DecisionTrace) -> None:
    place = int(np.flatnonzero(scene.subject.market.dates[scene.rows] == np.datetime64(card.date))[0])
    track = scene.track
    assert card.turnover == track.turnover[1:].max()
    for line in card.lines:
        assert line.trade == pytest.approx(line.after - line.before, abs=1e-15)
        assert sum(line.experts) + line.execution == pytest.approx(line.trade, abs=1e-15)
    assert sum(line.cost for line in card.lines) == pytest.approx(track.cost[place], abs=1e-15)
    assert sum(line.tail for line in card.lines) == pytest.approx(card.tail.cvar, abs=1e-15)
    assert card.focus == max(card.lines[:-1], key=lambda line: abs(line.trade)).asset
    assert sum(card.gate.values()) == pytest.approx(1.0, abs=1e-6)
    for why in (card.why_trade, card.why_aim):
        total = why.average + sum(one.share for one in why.top) + why.rest + why.residual
        assert total == pytest.approx(why.value, abs=1e-12)
        assert abs(why.residual) < 1e-4
    held = next(line for line in card.lines if line.asset == card.focus)
    assert card.why_trade.value == pytest.approx(held.target, abs=1e-6)
    assert card.outcome.net == track.net[place]
    assert card.outcome.alternatives["policy"][0] == pytest.approx(track.gross[place], abs=1e-15)


def test_the_same_card_twice(explainer: Explainer, card: Card, scene: DecisionTrace) -> None:
    other = Explainer(scene, "validation", explainer.gauges, explainer.provenance, 0)
    other.card(3)  # what was made before must not matter
    again = other.card(other.largest(1)[0])
    assert json.dumps(again.to_dict()) == json.dumps(card.to_dict())
    assert render_card(again) == render_card(card)


def test_a_card_knows_nothing_of_later_days_but_in_its_outcome(scene: DecisionTrace, explainer: Explainer) -> None:
    """Calibration apart, which says that it is of the whole window."""
    place = 20
    market = scene.subject.market
    later = market.returns.copy()
    later[int(scene.rows[place]) + 1 :] *= 1.5
    subject = replace(scene.subject, market=replace(market, returns=later))
    changed = Explainer(replace(scene, subject=subject), "validation", explainer.gauges, explainer.provenance, 0)
    ours, theirs = (asdict(one.card(place)) for one in (explainer, changed))
    assert ours["outcome"] != theirs["outcome"]
    for known in ours.keys() - {"outcome", "calibration"}:
        assert ours[known] == theirs[known], known


def test_gauges_say_how_the_label_came_about(explainer: Explainer, prepared: Prepared) -> None:
    gauges, regime = explainer.gauges, prepared.market.regime
    rows = [row for row in range(1, len(regime)) if regime[row] != NO_LABEL]
    for row in rows:
        label, before = REGIMES[regime[row]], regime[row - 1]
        crisis, volatile = gauges.loss[row] > 0.15, gauges.volatility[row] >= gauges.enter_volatile[row]
        if crisis:
            assert label == "crisis"
        elif label == "crisis":
            assert gauges.loss[row] >= 0.075
        elif volatile:
            assert label == "volatile"
        elif label == "volatile" and before != NO_LABEL:
            assert gauges.volatility[row] >= gauges.leave_volatile[row]
    assert len({int(regime[row]) for row in rows}) >= 3


def test_thresholds_are_as_far_as_the_card_says(card: Card) -> None:
    regime = card.regime
    assert list(regime.distance) == ["stable", "leaves_volatile", "enters_volatile", "leaves_crisis", "enters_crisis"]
    assert regime.volatility is not None
    assert regime.enters_volatile is not None
    assert regime.distance["enters_volatile"] == pytest.approx(regime.volatility - regime.enters_volatile)
    assert regime.distance["enters_crisis"] == pytest.approx(regime.loss - 0.15)
    shown = regime_gauges(card)[0].marks
    for place, (name, away) in enumerate(list(regime.distance.items())[:3]):
        assert f"({100 * away:+.1f} points)" in shown[place][1], name


def test_the_page_says_what_the_data_say(card: Card) -> None:
    page = unescape(re.sub(r"<[^>]+>", " ", render_card(card).split("</style>")[1]))
    page = re.sub(r"\s+", " ", page)
    assert f"Close of {card.date}" in page
    assert headline(card) in page
    assert f"Where the market stood: {card.regime.label}" in page
    assert "Discounted active reward" in page
    assert "not known at the decision" in page
    assert page.index("not known at the decision") > page.index("What else could have been done")
    assert f"{100 * card.outcome.net:+.2f} % net" in page
    for name in card.gate:
        assert name in page
    assert "<script" not in render_card(card)


def test_a_hostile_name_is_only_text(card: Card) -> None:
    name = "<script>alert(1)</script>"
    lines = (replace(card.lines[0], asset=name), *card.lines[1:])
    page = render_card(replace(card, lines=lines, focus=name))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_words_for_a_held_and_an_entered_day(explainer: Explainer, card: Card) -> None:
    still = replace(card, lines=tuple(replace(line, trade=0.0) for line in card.lines))
    assert headline(still).startswith("Held")
    entry = explainer.card(0)
    assert entry.entered
    assert headline(entry).startswith("Entered from cash")
    assert entry.rate == 1.0
    assert key_figures(entry)[3][2] == "first purchase"


def test_the_largest_trades_leave_the_first_purchase_out(explainer: Explainer, scene: DecisionTrace) -> None:
    places = explainer.largest(5)
    turnover = scene.track.turnover
    assert 0 not in places
    assert list(turnover[places]) == sorted(turnover[1:], reverse=True)[:5]
    assert explainer.largest(2, range(30, 40)) == [int(p) for p in 30 + np.argsort(-turnover[30:40])[:2]]


def test_a_rule_that_binds_is_seen(
    make_subject: MakeSubject, make_track_scene: MakeScene, explainer: Explainer
) -> None:
    scene = make_track_scene(make_subject(max_weight=0.15))
    card = Explainer(scene, "validation", explainer.gauges, {"run": "x"}, 0).card(10)
    capped = [line for line in card.lines[:-1] if line.target > 0.15 + 1e-6]
    assert capped
    assert all(line.after == pytest.approx(0.15) and line.execution < 0 for line in capped)


def test_cells_are_shaded_by_their_share_of_the_largest(card: Card) -> None:
    table = trade_table(card)
    assert len(table.rows) == len(card.lines)  # every name has its row, cash the last
    largest = max(abs(part) for line in card.lines[:-1] for part in (line.trade, *line.experts, line.execution))
    line = next(line for line in card.lines if line.asset == table.rows[0].cells[0].text)
    assert table.rows[0].cells[4].tint == pytest.approx(line.trade / largest)
    assert table.rows[0].cells[6].tint == pytest.approx(line.experts[0] / largest)
    assert all(abs(cell.tint) <= 1.0 for row in table.rows for cell in row.cells)
    page = render_card(card)
    shade = round(100 * abs(line.trade) / largest)
    assert f'class="number {"up" if line.trade > 0 else "down"}" style="--tint:{shade}%"' in page


def test_a_held_day_is_not_shaded_as_if_it_were_traded(card: Card) -> None:
    tiny = tuple(
        replace(line, trade=line.trade * 1e-4, experts=tuple(e * 1e-4 for e in line.experts), execution=0.0)
        for line in card.lines
    )
    rows = trade_table(replace(card, lines=tiny)).rows[:-1]
    assert max(abs(cell.tint) for row in rows for cell in row.cells) < 0.1


def test_the_critic_is_drawn_where_its_numbers_are(card: Card) -> None:
    atoms = np.array(card.value_distribution.atoms)
    places = np.array([value_axis(card)(atom) for atom in card.value_distribution.atoms])
    slope, start = np.polyfit(atoms, places, 1)
    np.testing.assert_allclose(places, start + slope * atoms, atol=1e-9)
    assert value_axis(card)(0.0) == pytest.approx(start)
    assert 0 < places.min() < places.max() < 100
    page = render_card(card)
    for name, value in card.value_distribution.quantiles.items():
        assert f'style="left:{start + slope * value:.2f}'.rstrip("0") in page
        assert f">{name} {value:+.1f}</span>" in page
    assert card.calibration is not None
    assert sum(card.calibration.histogram) == pytest.approx(1.0)


def test_inputs_have_names_in_words() -> None:
    assert plain_name("prior:growth") == "growth's prior"
    assert plain_name("AAPL return_1d") == "AAPL return 1d"
    assert plain_name("signal:prior:x") == "signal:prior:x"


def test_a_move_is_told_with_the_digits_it_needs() -> None:
    def said(before: float, after: float) -> str:
        move = Move("prior:growth", before, after)
        return " ".join(flip_says(Flip("?", move, move.size, (move,))))

    assert "growth's prior from -0.5 to +1.0 σ, 1.50 σ away. Together: 1.50 σ away" in said(-0.5, 1.0)
    assert "from +0.0312 to +0.0340 σ, only 0.003 σ away: it hung by a thread" in said(0.0312, 0.0340)
