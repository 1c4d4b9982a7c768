"""Results that the stages return."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finflow.errors import AuditError
from finflow.evaluation.audit.findings import Check
from finflow.evaluation.confidence import Confidence
from finflow.evaluation.decision_log import Realised
from finflow.evaluation.result import Evaluation
from finflow.evaluation.study import Study
from finflow.explanations.card import Card
from finflow.stages.ticket import Ticket

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class PretrainResult:
    """Phase 1: last epoch's losses, validation figures, and where everything lies."""

    run_dir: Path
    weights: Path
    metrics_path: Path
    v_loss: float
    q_loss: float
    policy_loss: float
    metrics: Figures
    confidence: Confidence | None
    next_command: str


@dataclass(frozen=True)
class FinetuneResult:
    """Phase 2: figures of the selected checkpoint, the episode it stems from (0: the hand-over) and diagnostics.

    `diagnostics` compares gate and experts of the selected checkpoint with the hand-over, `diagnostics_at_end` those
    at the end of training; `dip` is the worst validation objective after the hand-over minus that at the hand-over.
    """

    run_dir: Path
    weights: Path
    metrics_path: Path
    selected_episode: int
    dip: float | None
    metrics: Figures
    diagnostics: Figures
    diagnostics_at_end: Figures
    confidence: Confidence | None
    next_command: str


@dataclass(frozen=True)
class EvaluateResult:
    """The test window: everything the report says, and where it lies; `study` where several runs were named.

    `runs` are the folders judged; `confidence` says by run how much of its tilt is deployed; `new_days` counts what the
    data have gained since the first was trained. `rendered_from` is the earlier evaluation that the page was made from,
    None where the test window was opened.
    """

    run_dir: Path
    report: Path
    evaluation: Evaluation
    study: Study | None
    runs: tuple[Path, ...]
    confidence: Mapping[str, str]
    new_days: int
    next_command: str
    rendered_from: Path | None = None


@dataclass(frozen=True)
class ExplainResult:
    """Decision cards of `runs`, one a day, and their pages; `index` lists them where there are several."""

    run_dir: Path
    cards: tuple[Card, ...]
    pages: tuple[Path, ...]
    index: Path | None
    runs: tuple[Path, ...]
    next_command: str


@dataclass(frozen=True)
class AuditResult:
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

    def require(self) -> None:
        """Raise `AuditError` with the verdict where anything leaks."""
        if not self.passed:
            raise AuditError(self.line())


@dataclass(frozen=True)
class CollectResult:
    """An offline dataset: its file and size."""

    run_dir: Path
    dataset: Path
    transitions: int
    next_command: str
    calendar: str


@dataclass(frozen=True)
class ExportResult:
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


@dataclass(frozen=True)
class DecideResult:
    """Target weights for the latest date in the data, by the policy of `runs`, averaged where they are several.

    `ticket` leads there from what is held, `portfolio` says in words what that is, and `owned` whether it is what the
    user named or a model portfolio. `card` is the decision's page, `log` where it was logged, and `became` says what
    came of the last decisions of the same policy, the newest last.
    `verdict` is that of the newest evaluation of the run, None before any.
    `confidence` says by run how much of its tilt is deployed. `new_days` counts what the data have gained since it
    was trained, their past being the same (0 where it is not). `decides` says whether the date is a decision day: the
    last session of its period, by `env.rebalance`.
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
