"""A run's policy as an ONNX file, checked against the policy on every decision of the validation window."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finflow import __version__
from finflow.artifacts.onnx_policy import (
    INPUTS,
    OUTPUTS,
    UnscaledPolicy,
    answers,
    inputs_of,
    names_of,
    onnx_bytes,
    require_libraries,
)
from finflow.artifacts.provenance import Stopwatch, finish_run, made_folder
from finflow.artifacts.runs import check_arguments, command_for, out_file
from finflow.errors import AuditError, ConfigError
from finflow.io.files import atomic_write
from finflow.io.weights import sha256_of
from finflow.schema import Config
from finflow.stages.loaded_run import Trained, load_trained, named_after, record_of, single_run, tell_other_data
from finflow.stages.results import ExportResult

SUFFIX, ANSWERS = ".onnx", ".npz"
TOLERANCE = 1e-5
"""Largest difference of a weight; float32 sums in another order differ by about 1e-7."""
AFTERWARDS = (
    "Not in this file: FinFlow's ledger applies it to the target, in this order. A position whose price has ended is "
    "closed into cash, on any day; on a decision_day a name that is not tradable stays as it is held, and the others "
    "share what it leaves; then max_weight of a name, min_cash, no_trade_band and max_turnover (two-way), fractions of "
    "net asset value (null or 0: no such limit)."
)


def export(config: Config, run_dir: Path | None = None) -> ExportResult:
    """Write the policy of `config.run` to `config.out`, and beside it an .npz of inputs and answers to test with.

    The policy is the one that `evaluate` and `decide` follow: greedy, the average of its actors, at its confidence.

    Raises
    ------
    ConfigError
        If `out` can be no such file, the extra is missing, or there is no such finished run.
    DataError, StorageError
        See `load_trained`; or if the files cannot be written.
    AuditError
        If onnxruntime computes other weights from the file than the policy gives; nothing is then written.
    """
    run_dir = check_arguments(config, "export", run_dir)
    stopwatch, path = Stopwatch(), out_file(config.out)
    if path.suffix != SUFFIX:
        raise ConfigError(f"out={config.out}: no {SUFFIX} file; name one that ends in {SUFFIX}")
    known = out_file(str(path.with_suffix(ANSWERS)))
    require_libraries()
    with stopwatch.phase("prepare"):
        trained = load_trained(config, single_run(config))
    tell_other_data(trained)
    with stopwatch.phase("export"):
        days, inputs, wanted = _validation(trained)
        policy = UnscaledPolicy(trained.stored.build(torch.device("cpu")).actor, trained.stored.scaling)
        file = onnx_bytes(policy, inputs, _metadata(trained))
    with stopwatch.phase("check"):
        found = answers(file, inputs)
        apart = max(float(np.abs(found[name] - wanted[name]).max()) for name in OUTPUTS)
    if not apart <= TOLERANCE:
        raise AuditError(
            f"run={trained.folder}: onnxruntime's weights are {apart:.1e} off the policy's; take the versions of "
            "constraints.txt: pip install -c constraints.txt -e '.[export]'"
        )
    atomic_write(path, file)
    packed, arrays = io.BytesIO(), dict[str, Any](inputs | wanted)
    np.savez(packed, dates=days, **arrays)
    atomic_write(known, packed.getvalue())
    own = named_after(config, trained)
    folder = made_folder(own, run_dir)
    facts = {
        "run": str(trained.folder),
        "settings": {"run": config.run, "out": config.out},
        "file": str(path),
        "sha256": sha256_of(path),
    }
    said = None if trained.confidence is None else trained.confidence.line()
    summary = {"decisions": len(days), "difference": apart, "confidence": said}
    finish_run(folder, own, record_of(own, trained, stopwatch, facts), stopwatch, summary)
    following = command_for("decide", trained.config, {"run": trained.folder})
    return ExportResult(folder, path, known, trained.folder, said, len(days), apart, following)


def _validation(trained: Trained) -> tuple[NDArray[np.datetime64], dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Days, inputs and the policy's own answers of all decisions of the validation window, followed from cash."""
    prepared, window = trained.prepared, trained.prepared.fold.validation
    track = prepared.track(window, trained.policy.act)
    rows = np.asarray(window.decisions, dtype=np.int64)
    inputs = inputs_of(prepared.market, prepared.priors, rows, track.drifted, track.drawdown_before)
    decision = trained.policy.decide(rows, track.drifted, track.drawdown_before)
    wanted = {"target": decision.mean.cpu().numpy(), "aim": decision.aim.cpu().numpy()}
    return prepared.market.dates[rows], inputs, wanted


def _metadata(trained: Trained) -> dict[str, Any]:
    """What a reader of the file has to know; `kappa` 1 is the whole tilt."""
    market, confidence = trained.prepared.market, trained.confidence
    limits = asdict(trained.prepared.accounting)
    cost_rate = limits.pop("cost_rate")
    return {
        "finflow_version": __version__,
        "weights_sha256": str(trained.summary["weights_sha256"]),
        **names_of(market),
        "calendar": market.calendar.line(),
        "rebalance": market.rebalance,
        "kappa": 1.0 if confidence is None else confidence.kappa,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "limits_applied_afterwards": limits,
        "applied_afterwards": AFTERWARDS,
        "cost_rate": cost_rate,
    }
