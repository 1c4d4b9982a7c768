"""How often a test window has been looked at: `test_ledger.jsonl` under `output_root`, a `HashChain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finflow.io.hash_chain import HashChain

FILE_NAME = "test_ledger.jsonl"


@dataclass(frozen=True)
class Opening:
    """One opening: `count`-th of its data and fold, and the head hash of the chain after it."""

    count: int
    head: str


def _log(output_root: Path) -> HashChain:
    words = ("the opening", "the log of test-window openings")
    return HashChain(Path(output_root) / FILE_NAME, words, ("fingerprint", "fold", "run", "when"))


def record_opening(output_root: Path, fingerprint: str, fold: str, run: str, when: str) -> Opening:
    """Append one opening of a test window, before its returns are looked at.

    Raises AuditError, StorageError as `HashChain.append`.

    Parameters
    ----------
    output_root : folder of the log, made if missing.
    fingerprint, fold : of the data and the split; openings are counted by both.
    run, when : which run's policy was judged, and the time as text.
    """
    log = _log(output_root)
    entries, head = log.append({"fingerprint": fingerprint, "fold": fold, "run": run, "when": when})
    return Opening(sum((e["fingerprint"], e["fold"]) == (fingerprint, fold) for e in entries) + 1, head)


def verify_openings(output_root: Path, noted: Mapping[str, str] | None = None) -> int:
    """Check the chain and return how many openings it holds; a missing log holds none.

    Raises AuditError, StorageError as `HashChain.entries`.

    Parameters
    ----------
    noted : head hashes that runs noted down, by run; the chain must still contain each.
    """
    return len(_log(output_root).entries(noted))


def count_openings(output_root: Path, fingerprint: str, fold: str) -> int:
    """How often the window of these data and this fold has been opened; none is added.

    Raises AuditError, StorageError as `HashChain.entries`.
    """
    return sum((entry["fingerprint"], entry["fold"]) == (fingerprint, fold) for entry in _log(output_root).entries())
