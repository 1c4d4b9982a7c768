"""A data set frozen into one file, so that a study can be rerun when its source has changed or is gone.

The file is safetensors: dates, closes, volumes, signals and the bytes of a user's benchmark and rate files, under one
hash. It is made by the first run that names it, and is all that later runs read.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from finflow.data.prices import Prices
from finflow.data.series import EQUAL_WEIGHT
from finflow.errors import ConfigError, DataError, StorageError
from finflow.io.files import atomic_write
from finflow.io.weights import Arrays, content_hash
from finflow.schema import part_of
from finflow.schema.fields import Role
from finflow.schema.sections import Env

FORMAT = 1
ALL_DAYS = ("sp500", "csv", "synthetic")
"""Sources that return all their days, whatever `env.start` is."""
_HEAD, _SIGNAL, _FILE = "finflow-snapshot", "signal:", "file:"


def frozen(env: Env, read: Callable[[], Prices]) -> Prices:
    """Prices of the file `env.snapshot`; where there is none, those of `read`, which the file then holds.

    Raises
    ------
    ConfigError
        If the file was made with other settings.
    DataError
        If it is something else.
    StorageError
        If it does not match its hash, or cannot be read or written.
    """
    assert env.snapshot is not None, "asked for only then"
    path = Path(env.snapshot)
    if path.exists():
        return thaw(path, env)
    prices = read()
    sha256 = freeze(path, prices, env)
    print(
        f"Snapshot: {path} holds {len(prices.tickers)} names, {prices.dates[0]} to {prices.dates[-1]}, from now on "
        f"(sha256 {sha256[:16]})",
        file=sys.stderr,
        flush=True,
    )
    return prices


def freeze(path: Path, prices: Prices, env: Env) -> str:
    """Write `prices`, and the settings of `env` that they depend on, at once; returns the hash. Raises as `frozen`."""
    arrays: Arrays = {"dates": prices.dates.astype(np.int64), "close": prices.close}
    if prices.volume is not None:
        arrays["volume"] = prices.volume
    arrays |= {f"{_SIGNAL}{name}": values for name, values in prices.signals.items()}
    arrays |= {f"{_FILE}{key}": np.frombuffer(data, dtype=np.uint8) for key, data in prices.files.items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    facts = {
        "format": FORMAT,
        "settings": settings_of(env),
        "tickers": list(prices.tickers),
        "signals": list(prices.signals),
        "warnings": list(prices.warnings),
    }
    sha256 = _hash(facts, arrays)
    atomic_write(path, save(arrays, {_HEAD: json.dumps({**facts, "sha256": sha256})}))
    return sha256


def thaw(path: Path, env: Env) -> Prices:
    """Prices of a snapshot that was made with the settings of `env`; raises as `frozen`."""
    facts, arrays = _read(path)
    theirs, ours = facts["settings"], settings_of(env)
    differing = [key for key in ours if ours[key] != theirs.get(key)]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"env.snapshot={path}: made with env.{key}={json.dumps(theirs.get(key))}, not {json.dumps(ours[key])}; "
            "name a new file for other settings"
        )
    return Prices(
        arrays["dates"].astype("datetime64[D]"),
        tuple(facts["tickers"]),
        arrays["close"],
        arrays.get("volume"),
        {name: arrays[f"{_SIGNAL}{name}"] for name in facts["signals"]},
        {name.removeprefix(_FILE): array.tobytes() for name, array in arrays.items() if name.startswith(_FILE)},
        tuple(facts["warnings"]),
    )


def settings_of(env: Env) -> dict[str, Any]:
    """Settings that a data set depends on, beside its files."""
    settings = part_of(env.model_dump(), {Role.DATA}, "env")
    lag = settings.pop("signals_lag")
    return settings | {
        "start": None if env.source in ALL_DAYS else env.start,
        "calendar": None if env.calendar == "all" else env.calendar,
        "regimes": env.regimes.model_dump() if env.synthetic and env.synthetic.signal == "regime" else None,
        "signals": None if env.signals is None else f"of lag {lag}",
        "benchmark": EQUAL_WEIGHT if env.benchmark == EQUAL_WEIGHT else "a file",
        "cash_yield": "a file" if isinstance(env.cash_yield, str) else "a rate",
    }


def _read(path: Path) -> tuple[dict[str, Any], Arrays]:
    if path.is_dir():
        raise DataError(f"env.snapshot={path}: a folder; name a file, which the first run makes")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        facts = json.loads(metadata[_HEAD])
        arrays = {name: array.copy() for name, array in load(path.read_bytes()).items()}
    except OSError as error:
        raise StorageError(f"env.snapshot={path}: cannot be read ({error.strerror}); check its permissions") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"env.snapshot={path}: no snapshot of FinFlow, or cut short; restore it from a copy, or name a new file"
        ) from error
    stated = facts.pop("sha256", None)
    if stated != _hash(facts, arrays):
        raise StorageError(
            f"env.snapshot={path}: damaged or edited, its content does not match its hash; restore it from a copy"
        )
    if facts["format"] != FORMAT:
        raise DataError(f"env.snapshot={path}: of format {facts['format']}, this FinFlow reads {FORMAT}")
    return facts, arrays


def _hash(facts: Mapping[str, Any], arrays: Arrays) -> str:
    return hashlib.sha256(json.dumps([facts, content_hash(arrays)], sort_keys=True).encode()).hexdigest()
