"""Sentences of a decision card: the trade, what would have flipped it, the critic's forecast."""

from typing import Any

from finflow.explanations.card import Card, Reasons
from finflow.explanations.counterfactual import Flip, Move
from finflow.explanations.decision import Holding

STANDING = {
    "train": "A day of the train window: the policy was fitted on it. This shows how it decides, not how good it is.",
    "validation": "A day of the validation window, by which the checkpoint was selected.",
    "test": "",
    "live": "A decision after the test window: what follows it was not known in training, selection or judgement.",
}
"""A note for the reader on the window of a card."""
SMALL = 5e-5
"""Smaller trades than half a basis point are left out of the sentences."""
NEAR = 0.1
"""Smaller moves, in train standard deviations, are written with more digits."""


def percent(value: float, decimals: int = 2) -> str:
    """A fraction in per cent."""
    return f"{100 * value + 0.0:.{decimals}f} %"


def basis(value: float) -> str:
    """A fraction in basis points."""
    return f"{1e4 * value + 0.0:.2f} bp"


def headline(card: Card) -> str:
    """The trade in one sentence."""
    traded = sorted((line for line in card.lines[:-1]), key=lambda line: -abs(line.trade))
    told = [line for line in traded[:3] if abs(line.trade) >= SMALL]
    if card.entered:
        return f"Entered from cash: the whole aim was bought, {percent(card.turnover, 1)} of wealth."
    if not told:
        return "Held: no name was traded by as much as half a basis point of wealth."
    words = [f"{'bought' if line.trade > 0 else 'sold'} {percent(abs(line.trade))} {line.asset}" for line in told]
    others = sum(1 for line in traded if abs(line.trade) >= SMALL) - len(told)
    rest = f", and {others} smaller trade{'s' if others > 1 else ''}" if others else ""
    text = ", ".join(words) + rest
    return f"{text[0].upper()}{text[1:]}."


def holding_says(found: Holding) -> tuple[str, ...]:
    """Why a holding is as large as it is: its trades and drift, the way to the aim, the rules, and its costs."""
    away = "as far as it was asked" if found.rate == 1.0 else f"{percent(found.rate)} of the way"
    rules = [f"{name} {1e4 * part + 0.0:+.2f} bp" for name, part in found.rules.items() if abs(part) >= SMALL / 100]
    return (
        f"{found.asset} is {percent(found.weight)} of wealth. Before the close of {found.since} it was "
        f"{percent(found.start)}; from then on trades added {100 * found.traded:+z.2f} points, prices "
        f"{100 * found.drift:+z.2f}.",
        f"The aim is {percent(found.aim)}: each expert's own weight for it, times its share of the gate. From "
        f"{percent(found.before)} before, it went {away}, to {percent(found.target)}.",
        f"Of the ledger's rules: {', '.join(rules)}." if rules else "No rule of the ledger changed that.",
        f"Costs change no weight, they are paid from all wealth: {basis(found.cost)} for its trade that day, "
        f"{basis(found.cost_since)} for all since {found.since}. The trading rate was learnt "
        f"where a trade costs {1e4 * found.cost_rate:g} bp.",
    )


def plain_name(label: str) -> str:
    """An input's name in words: `prior:growth` is growth's prior."""
    before, _, expert = label.partition("prior:")
    return f"{expert}'s prior" if expert and not before else label.replace("_", " ")


def reasons_say(why: Reasons) -> str:
    """The weight that is attributed, beside that of an average day."""
    average = f"on an average day, with the same holdings, {percent(why.average)}"
    return f"{why.subject[0].upper()}{why.subject[1:]}: {percent(why.value)}; {average}."


def residual_says(why: Reasons) -> str:
    """What the numerical integral left of the attribution."""
    return f"Completeness residual {1e4 * why.residual:+.5f} bp, {why.steps} points of the integral."


def flip_says(flip: Flip) -> tuple[str, ...]:
    """The changes that flip a decision: the smallest of one feature, and of all of them together."""
    if flip.single is None and flip.joint is None:
        return ("No move of the features within ±5 σ does it: priors and holdings decide here.",)
    said: list[str] = []
    if flip.single is None:
        said.append("No single feature does it within ±5 σ.")
    else:
        said.append(f"Alone: {_move(flip.single)}, {_away(flip.single.size)}.")
    if flip.joint is not None:
        moves = "; ".join(_move(move) for move in flip.parts[:3])
        said.append(f"Together: {_away(flip.joint)}, above all {moves}.")
    return tuple(said)


def _move(move: Move) -> str:
    digits = 1 if move.size >= NEAR else 4
    return f"{plain_name(move.label)} from {move.before:+.{digits}f} to {move.after:+.{digits}f} σ"


def _away(size: float) -> str:
    return f"{size:.2f} σ away" if size >= NEAR else f"only {size:.1g} σ away: it hung by a thread"


def leaders_say(card: Card) -> str:
    """The expert that would lead the gate under another regime label."""
    if len(card.gate) == 1:
        return "One expert, no gate: the regime label moves it as any other input does."
    leaders = set(card.leaders.values())
    if len(leaders) == 1:
        return f"Under any regime label {next(iter(leaders))} would lead the gate, all else equal."
    told = ", ".join(f"{leader} under {regime}" for regime, leader in card.leaders.items())
    return f"Another label, all else equal, would give the lead to: {told}."


def expects(card: Card) -> tuple[str, ...]:
    """The critic's forecast, and how well its forecasts held over a window."""
    found, calibration = card.value_distribution, card.calibration
    low, middle, high = found.quantiles.values()
    says = [
        f"Discounted active reward (γ {found.gamma:g}, about {1 / (1 - found.gamma):.0f} {card.unit}s): "
        f"mean {found.mean:+.2f}, median {middle:+.1f}, 5 to 95 % {low:+.1f} to {high:+.1f}. "
        f"{found.scale / 100:.2g} units are an active log return of 1 %."
    ]
    if calibration is None:
        return (*says, f"The {card.calibration_window} window is too short to say how well the critic was calibrated.")
    ratio = calibration.spread_ratio
    held = f"{percent(calibration.coverage, 0)} of what the month after it brought (90 % if calibrated)"
    judged = f"Over the whole {card.calibration_window} window its 5 to 95 % band held {held}"
    if ratio is not None:
        word = "too sure of itself" if ratio > 1.1 else "not sure enough" if ratio < 0.9 else "about right in width"
        judged += f"; surprises were {ratio:.1f} times as large as it expected: it was {word}"
    sign = "" if calibration.bias_low <= 0 <= calibration.bias_high else ", which is not zero"
    interval = f"[{calibration.bias_low:+.2f}, {calibration.bias_high:+.2f}]"
    return (*says, f"{judged}. Mean surprise {calibration.bias:+.2f} {interval}{sign}.")


def novelty(card: Card) -> tuple[str, ...]:
    """Distance of the day from the train days."""
    found = card.novelty
    odd = ", ".join(f"{plain_name(name)} {value:+.1f} σ" for name, value in found.unusual)
    like = ", ".join(found.nearest)
    rank = f"Distance to the nearest train days: larger than for {found.percentile:.0f} % of the train days."
    return rank, f"Nearest train days: {like}.", f"Furthest from the train mean: {odd}."


def title(card: Card) -> str:
    """Window and run of a card; of seeds averaged all of them."""
    runs = card.provenance["run"]
    several = f"{len(runs)} seeds averaged: " if isinstance(runs, list) else ""
    return f"{card.window} window · {several}{listed(runs)}"


def listed(fact: Any) -> Any:
    """A fact of several seeds as text, of one as it is."""
    return ", ".join(map(str, fact)) if isinstance(fact, list) else fact
