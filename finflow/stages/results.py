"""Results that the stages return."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import plotly.graph_objects as go

from finflow.errors import AuditError
from finflow.evaluation.audit.findings import Check
from finflow.evaluation.decision_log import Realised
from finflow.evaluation.metrics import Confidence
from finflow.evaluation.result import Evaluation, Verdict
from finflow.io.files import read_lines
from finflow.report.figures import equity_chart
from finflow.report.learning_curves import together, training_charts
from finflow.report.theme import standing_alone
from finflow.stages.shown import Shown, table_of
from finflow.stages.ticket import Ticket

if TYPE_CHECKING:  # they need SciPy and scikit-learn, which training has no use for: half a second, 60 MB
    from finflow.evaluation.study import Study
    from finflow.explanations.card import Card

Figures = Mapping[str, float | None]


class _Trained(Shown):
    """What the results of both phases show: figures, and how they came about."""

    step: ClassVar[str]
    run_dir: Path
    metrics_path: Path
    figures: Figures

    @property
    def metrics(self) -> pd.Series:
        """`figures` by name; NaN is an undefined one."""
        return pd.Series(dict(self.figures), dtype=float, name=self.run_dir.name)

    @property
    def curve(self) -> pd.DataFrame:
        """A row per epoch or episode, as `metrics.jsonl` has them, NaN where it has none."""
        return pd.DataFrame(read_lines(self.metrics_path)).set_index(self.step)

    def plot(self) -> go.Figure:
        """The training curves of the report, side by side."""
        return together(training_charts(read_lines(self.metrics_path), self.step))

    def frame(self) -> pd.DataFrame:
        """`metrics`, a row each."""
        return self.metrics.to_frame("value").rename_axis("figure")


@dataclass(frozen=True, repr=False)
class PretrainResult(_Trained):
    """Phase 1: last epoch's losses, validation figures, and where everything lies."""

    step = "epoch"

    run_dir: Path
    weights: Path
    metrics_path: Path
    v_loss: float
    q_loss: float
    policy_loss: float
    figures: Figures
    confidence: Confidence | None
    next_command: str

    def line(self) -> str:
        """The last epoch's losses."""
        losses = f"v_loss {self.v_loss:.3g}, q_loss {self.q_loss:.3g}, policy_loss {self.policy_loss:.3g}"
        return f"{losses}, {self.run_dir}"


@dataclass(frozen=True, repr=False)
class FinetuneResult(_Trained):
    """Phase 2: figures of the selected checkpoint, the episode it stems from (0: the hand-over) and diagnostics.

    `diagnostics` compares gate and experts of the selected checkpoint with the hand-over, `diagnostics_at_end` those
    at the end of training; `dip` is the worst validation objective after the hand-over minus that at the hand-over.
    """

    step = "episode"
    run_dir: Path
    weights: Path
    metrics_path: Path
    selected_episode: int
    dip: float | None
    figures: Figures
    diagnostics: Figures
    diagnostics_at_end: Figures
    confidence: Confidence | None
    next_command: str

    def line(self) -> str:
        """The episode that was kept."""
        return f"kept from episode {self.selected_episode}, {self.run_dir}"


@dataclass(frozen=True, repr=False)
class EvaluateResult(Shown):
    """The test window: everything the report says, and where it lies; `study` where several runs were named.

    `runs` are the folders judged; `confidence` says by run how much of its tilt is deployed; `new_days` counts what the
    data have gained since the first was trained. `rendered_from` is the earlier evaluation that the page was made from,
    None where the test window was opened.
    """

    run_dir: Path
    report: Path
    evaluation: Evaluation
    study: "Study | None"
    runs: tuple[Path, ...]
    confidence: Mapping[str, str]
    new_days: int
    next_command: str
    rendered_from: Path | None = None

    @property
    def verdict(self) -> Verdict:
        """The policy against 1/N."""
        return self.evaluation.verdict

    @property
    def metrics(self) -> pd.DataFrame:
        """A row per strategy, the policy first, a column per figure of `evaluation.result.Metrics`; NaN: undefined."""
        rows = {name: asdict(one) for name, one in self.evaluation.metrics.items()}
        return pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename_axis("strategy")

    @property
    def curve(self) -> pd.DataFrame:
        """Growth of 1, net of costs, a row per day of the window, a column per strategy."""
        policy = self.evaluation.policy
        tracks = {policy.name: policy} | self.evaluation.baselines
        dates = pd.DatetimeIndex(policy.dates, name="date")
        return pd.DataFrame({name: track.nav for name, track in tracks.items()}, index=dates)

    def plot(self) -> go.Figure:
        """Equity and drawdown against 1/N, as the report draws them."""
        return standing_alone(equity_chart(self.evaluation))

    def line(self) -> str:
        """The verdict, and where the report lies."""
        return f"{self.verdict.line()}, {self.report}"

    def frame(self) -> pd.DataFrame:
        """The main columns of `metrics`."""
        columns = ["annual_return", "volatility", "sharpe", "max_drawdown", "cvar95", "turnover"]
        return self.metrics.reindex(columns=columns)


@dataclass(frozen=True, repr=False)
class ExplainResult(Shown):
    """Decision cards of `runs`, one per day, and their pages; `index` lists them where there are several."""

    run_dir: Path
    cards: "tuple[Card, ...]"
    pages: tuple[Path, ...]
    index: Path | None
    runs: tuple[Path, ...]
    next_command: str

    def line(self) -> str:
        """How many cards, and the page to open."""
        count = "1 card" if len(self.cards) == 1 else f"{len(self.cards)} cards"
        return f"{count}, {self.index or self.pages[0]}"


@dataclass(frozen=True, repr=False)
class AuditResult(Shown):
    """A leak audit: its checks in the order in which they depend on each other, and where they are written."""

    run_dir: Path
    record: Path
    checks: tuple[Check, ...]
    dates: int
    next_command: str

    @property
    def passed(self) -> bool:
        """Whether nothing differed anywhere."""
        return not any(check.differences for check in self.checks)

    def line(self) -> str:
        """The verdict: what was done, or the first leak by the order of the checks."""
        made = sum(check.comparisons for check in self.checks)
        if self.passed:
            return f"Audit: PASSED ({len(self.checks)} checks, {made} comparisons, futures of {self.dates} dates)"
        failed = [check for check in self.checks if check.differences]
        first, *others = (difference for check in failed for difference in check.differences)
        rest = f" (and {len(others)} more in {', '.join(check.name for check in failed)})" if others else ""
        return f"Audit: FAILED, {first.line()}{rest}; let it use rows up to its own day alone, see {self.record}"

    def frame(self) -> pd.DataFrame:
        """A row per check."""
        rows = [(check.name, check.comparisons, len(check.differences)) for check in self.checks]
        return table_of(rows, ("check", "comparisons", "differences"))

    def require(self) -> None:
        """Raise `AuditError` with the verdict where anything leaks."""
        if not self.passed:
            raise AuditError(self.line())


@dataclass(frozen=True, repr=False)
class CollectResult(Shown):
    """An offline dataset: its file and size."""

    run_dir: Path
    dataset: Path
    transitions: int
    next_command: str
    calendar: str

    def line(self) -> str:
        """How much, and where."""
        return f"{self.transitions} transitions, {self.dataset}"


@dataclass(frozen=True, repr=False)
class ExportResult(Shown):
    """The policy of `run` as an ONNX file, and an .npz of inputs and its own answers on `decisions` days.

    `difference` is the largest of a weight between the two there; `confidence` says how much of the policy's tilt is
    deployed.
    """

    run_dir: Path
    file: Path
    answers: Path
    run: Path
    confidence: str | None
    decisions: int
    difference: float
    next_command: str

    def line(self) -> str:
        """How close the file comes to the policy, and where it lies."""
        return f"weights at most {self.difference:.1e} off on {self.decisions} decisions, {self.file}"


@dataclass(frozen=True)
class Trade:
    """One line of a decision: weights as fractions of NAV; the trade is target minus held."""

    asset: str
    held: float
    target: float
    note: str = ""

    @property
    def trade(self) -> float:
        """What to buy (positive) or sell, as a fraction of NAV."""
        return self.target - self.held


@dataclass(frozen=True, repr=False)
class DecideResult(Shown):
    """Target weights for the latest date in the data, by the policy of `runs`, averaged where they are several.

    `ticket` leads there from what is held, `portfolio` says in words what that is, and `owned` whether it is what the
    user named or a model portfolio. `became` says what came of the last decisions of the same policy, the newest last.
    `verdict` is that of the newest evaluation of the run, None before any; `confidence` and `new_days` are as an
    `EvaluateResult`'s. `decides` says whether the date is a decision day by `env.rebalance`.
    """

    run_dir: Path
    date: str
    trades: tuple[Trade, ...]
    ticket: Ticket
    portfolio: str
    owned: bool
    table: Path
    orders: Path
    card: Path
    log: Path
    became: tuple[Realised, ...]
    runs: tuple[Path, ...]
    verdict: str | None
    confidence: Mapping[str, str]
    new_days: int
    next_command: str
    decides: bool = True

    def line(self) -> str:
        """The day, and where the orders lie."""
        return f"at the close of {self.date}, {self.orders}"

    def frame(self) -> pd.DataFrame:
        """A row per asset: weight held, target, and the trade between, fractions of net asset value."""
        rows = [(trade.asset, trade.held, trade.target, trade.trade) for trade in self.trades]
        return table_of(rows, ("asset", "held", "target", "trade"))
