"""Whatever a user can get wrong: exit code 2, one line with the place and the remedy, and nothing written."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.config.compose import to_yaml
from finflow.schema import Config

from .conftest import STAGES, TINY, Tiny, code_of, launched, tree_hash
from .test_resuming import changed

ROOT = Path(__file__).resolve().parents[2]
DAYS = 1300
MARKET = [text for text in TINY if text.startswith("env")]


@dataclass(frozen=True)
class Bench:
    """A folder of good inputs, to be spoilt one at a time, and a finished run of each stage under `tiny`'s root."""

    folder: Path
    tiny: Tiny
    text: str

    @property
    def prices(self) -> Path:
        return self.folder / "prices.csv"

    def config(self, stage: str, **values: object) -> Config:
        """Configuration of a stage on the prices here, with other values; `__` stands for a dot."""
        found = self.tiny.configs[stage]
        for key, value in {"env__source": "csv", "env__synthetic": None, "env__path": str(self.prices)}.items():
            found = changed(found, key.replace("__", "."), value)
        for key, value in {"output_root": str(self.folder / "out"), **values}.items():
            found = changed(found, key.replace("__", "."), value)
        return found

    def put(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def spoil(self, old: str, new: str) -> Callable[[], object]:
        """The prices with one place changed."""
        assert self.text.count(old) >= 1
        self.put("prices.csv", self.text.replace(old, new, 1))
        return self.read

    def whole(self, content: str | bytes) -> Callable[[], object]:
        self.put("prices.csv", content)
        return self.read

    def read(self) -> object:
        return finflow.pretrain(self.config("pretrain"))

    def series(self, key: str, content: str) -> Callable[[], object]:
        path = self.put("series.csv", content)
        return lambda: finflow.pretrain(self.config("pretrain", **{f"env__{key}": path}))

    def of(self, stage: str, **values: object) -> Callable[[], object]:
        """A stage on the good prices, with other values."""
        return lambda: STAGES[stage](self.config(stage, **values), None)

    def synthetic(self, stage: str, **values: object) -> Callable[[], object]:
        """A stage on the market of the tiny runs, whose features are cached already."""
        config = self.tiny.configs[stage]
        for key, value in values.items():
            config = changed(config, key.replace("__", "."), value)
        return lambda: STAGES[stage](config, None)

    def collect(self, out: str) -> Callable[[], object]:
        config = finflow.load("collect", [*MARKET, f"output_root={self.folder / 'out'}", f"out='{out}'"])
        return lambda: finflow.collect(config)

    def judge(self, run: object) -> Callable[[], object]:
        config = finflow.load("evaluate", [f"output_root={self.folder / 'out'}"])
        return lambda: finflow.evaluate(changed(config, "run", run))

    def typed(self, stage: str, *words: str) -> Callable[[], object]:
        """A command line, up to where the stage would begin."""

        return lambda: launched(stage, *words, f"output_root={self.folder / 'out'}")


@pytest.fixture(scope="module")
def text() -> str:
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2010-01-04", periods=DAYS).strftime("%Y-%m-%d")
    prices = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, (DAYS, 3)), axis=0))
    rows = [f"{day},{a:.4f},{b:.4f},{c:.4f}" for day, (a, b, c) in zip(days, prices, strict=True)]
    return "\n".join(["Date,AA,BB,CC", *rows, ""])


@pytest.fixture
def bench(tmp_path: Path, tiny: Tiny, wanted: object, text: str) -> Bench:
    (tmp_path / "prices.csv").write_text(text)
    return Bench(tmp_path, tiny, text)


def cell(bench: Bench, new: str) -> Callable[[], object]:
    """The second cell of line 4 replaced."""
    row = bench.text.split("\n")[3]
    return bench.spoil(row, ",".join([row.split(",")[0], new, *row.split(",")[2:]]))


def day(bench: Bench, new: str) -> Callable[[], object]:
    """The date of line 4 replaced."""
    return bench.spoil(bench.text.split("\n")[3].split(",")[0], new)


def line(bench: Bench, new: str) -> Callable[[], object]:
    return bench.spoil(bench.text.split("\n")[3], new)


def levels(bench: Bench, change: Callable[[str], str]) -> str:
    """A series of the market's own days, changed."""
    days = [row.split(",")[0] for row in bench.text.split("\n")[1:-1]]
    return change("\n".join(["date,level", *(f"{day},{100 + k}" for k, day in enumerate(days)), ""]))


Case = tuple[Callable[[Bench], Callable[[], object]], str, str]
PRICES: dict[str, Case] = {
    "no file": (lambda b: b.of("pretrain", env__path=str(b.folder / "no.csv")), "no.csv: no such file", "check the"),
    "a folder": (lambda b: b.of("pretrain", env__path=str(b.folder)), ": a directory", "name a CSV file"),
    "empty": (lambda b: b.whole(""), "prices.csv:1:1: the file is empty", "write a header"),
    "header alone": (lambda b: b.whole("Date,AA,BB\n"), "prices.csv:2:Date: no rows", "add a row"),
    "no header": (lambda b: b.whole(b.text.split("\n", 1)[1]), "prices.csv:1:1: no header", "add a row of column"),
    "latin-1": (lambda b: b.whole(b.text.replace("BB", "B\xe9", 1).encode("latin-1")), ":1:3: byte 0xe9", "UTF-8"),
    "utf-16": (lambda b: b.whole(b.text.encode("utf-16")), "prices.csv:1:1: UTF-16", "save the file as UTF-8"),
    "workbook": (lambda b: b.whole(b"PK\x03\x04 rest"), "prices.csv:1:1: binary data", "export the table"),
    "semicolons": (
        lambda b: b.whole(b.text.replace(",", ";")),
        "prices.csv:1:1: columns are",
        "add env.format.separator=semicolon",
    ),
    "text": (lambda b: cell(b, "n.a."), "prices.csv:4:AA: 'n.a.' is not a number", "leave the cell blank"),
    "NaN": (lambda b: cell(b, "nan"), "prices.csv:4:AA: 'nan' is not a number", "leave the cell blank"),
    "infinity": (lambda b: cell(b, "inf"), "prices.csv:4:AA: 'inf' is not a number", "leave the cell blank"),
    "beyond floats": (lambda b: cell(b, "1e999"), "prices.csv:4:AA: '1e999' is beyond", "correct it"),
    "zero": (lambda b: cell(b, "0"), "prices.csv:4:AA: price 0 is not positive", "correct it"),
    "negative": (lambda b: cell(b, "-3"), "prices.csv:4:AA: price -3 is not positive", "correct it"),
    "absurd": (lambda b: cell(b, "1e300"), "prices.csv:4:AA: price 1e+300 is outside", "multiply the whole column"),
    "thousands": (lambda b: cell(b, '"1,200.5"'), "prices.csv:4:AA: '1,200.5' has a thousands", "write 1200.5"),
    "currency": (lambda b: cell(b, "$12"), "prices.csv:4:AA: '$12' is not a number", "write a number"),
    "blank between": (lambda b: cell(b, ""), "prices.csv:4:AA: a blank between prices", "add env.calendar=common"),
    "no such day": (lambda b: day(b, "2010-02-30"), "prices.csv:4:Date: '2010-02-30' is not a date", "YYYY-MM-DD"),
    "american day": (lambda b: day(b, "01/06/2010"), "prices.csv:4:Date: '01/06/2010' is not", "YYYY-MM-DD"),
    "time zone": (lambda b: day(b, "2010-01-06T00:00+09:00"), "prices.csv:4:Date: ", "write the date alone"),
    "future": (lambda b: day(b, "2199-01-01"), "prices.csv:4:Date: date 2199-01-01 is in the future", "remove"),
    "twice": (lambda b: day(b, "2010-01-05"), "prices.csv:4:Date: date 2010-01-05 stands on line 3", "keep one"),
    "unsorted": (lambda b: day(b, "2009-01-05"), "prices.csv:4:Date: date 2009-01-05 comes after", "sort the rows"),
    "short row": (lambda b: line(b, "2010-01-06,1.0"), "prices.csv:4:BB: 2 cells where", "a cell per column"),
    "long row": (lambda b: line(b, "2010-01-06,1,2,3,4"), "prices.csv:4:5: 5 cells where", "a cell per column"),
    "blank row": (lambda b: line(b, "2010-01-06,,,"), "prices.csv:4:AA: a row without any price", "delete"),
    "blank line": (lambda b: line(b, ""), "prices.csv:4:1: a blank line", "delete it"),
    "open quote": (lambda b: line(b, '2010-01-06,"1,2,3'), "prices.csv:4:1: not a CSV record", "check its quotes"),
    "huge cell": (lambda b: line(b, f"2010-01-06,{'x' * 200_000},2,3"), ":4:1: not a CSV record", "check"),
    "ticker twice": (lambda b: b.spoil("BB", "AA"), "prices.csv:1:AA: column 'AA' stands twice", "keep one"),
    "ticker CASH": (lambda b: b.spoil("BB", "CASH"), "prices.csv:1:CASH: a ticker called CASH clashes", "rename it"),
    "one ticker": (lambda b: b.whole("Date,AA\n2010-01-04,1\n"), "prices.csv:1:AA: only one ticker", "at least two"),
    "too short": (lambda b: b.whole("\n".join(b.text.split("\n")[:200])), ": 199 rows of prices", "add history"),
    "unknown ticker": (lambda b: b.of("pretrain", env__tickers=["AA", "ZZ"]), "env.tickers", "ZZ"),
    "end too early": (lambda b: b.of("pretrain", env__end="2010-06-01"), "prices: no day on which", "env.end later"),
    "no such fold": (lambda b: b.of("pretrain", fold="1871"), "fold='1871': no such fold", "choose"),
}
SERIES: dict[str, Case] = {
    "benchmark: text": (
        lambda b: b.series("benchmark", levels(b, lambda t: t.replace(",102\n", ",x\n"))),
        "env.benchmark=",
        ":4:level: 'x' is not a number",
    ),
    "benchmark: negative": (
        lambda b: b.series("benchmark", levels(b, lambda t: t.replace(",102\n", ",-1\n"))),
        "env.benchmark=",
        ":4:level: level -1 is not positive; correct it",
    ),
    "benchmark: a day missing": (
        lambda b: b.series("benchmark", levels(b, lambda t: "\n".join(x for x in t.split("\n") if ",102" not in x))),
        "env.benchmark=",
        "no level for 2010-01-06",
    ),
    "benchmark: no file": (
        lambda b: b.of("pretrain", env__benchmark="no.csv"),
        "env.benchmark=no.csv",
        "check the path",
    ),
    "cash: text": (lambda b: b.series("cash_yield", "date,rate\n2010-01-04,x\n"), "env.cash_yield=", "is not a number"),
    "cash: from too late on": (
        lambda b: b.series("cash_yield", "date,rate\n2012-01-04,0.01\n"),
        "env.cash_yield=",
        "2010-01-04",
    ),
    "cash: percent": (lambda b: b.series("cash_yield", "date,rate\n2010-01-04,5\n"), "env.cash_yield=", "fraction"),
    "signal: text": (
        lambda b: b.series("signals", "date,AA\n2010-01-04,x\n"),
        "env.signals=",
        ":2:AA: 'x' is not a number",
    ),
    "signal: of other names": (
        lambda b: b.series("signals", "date,ZZ\n2010-01-04,1\n"),
        "env.signals=",
        "no column is one of the prices'",
    ),
    "signal: an empty folder": (
        lambda b: b.of("pretrain", env__signals=str(Path(b.put("signals/x.txt", "")).parent)),
        "env.signals=",
        "put a CSV",
    ),
}
FILES: dict[str, Case] = {
    "dataset: none": (
        lambda b: b.synthetic("pretrain", offline__dataset="no.npz"),
        "offline.dataset=no.npz: no such file",
        "collect.py",
    ),
    "dataset: text": (
        lambda b: b.synthetic("pretrain", offline__dataset=b.put("d.npz", "hello")),
        "not a dataset of FinFlow, or damaged",
        "collect.py",
    ),
    "dataset: a folder": (
        lambda b: b.synthetic("pretrain", offline__dataset=str(b.folder)),
        "not a dataset of FinFlow",
        "collect.py",
    ),
    "collected: into a folder": (
        lambda b: b.collect(str(b.folder)),
        ": a folder",
        "name a file",
    ),
    "collected: below a file": (
        lambda b: b.collect(str(b.prices / "data.npz")),
        "prices.csv is a file",
        "name another folder",
    ),
    "snapshot: text": (
        lambda b: b.of("pretrain", env__snapshot=b.put("s.safetensors", "hello")),
        "no snapshot of FinFlow",
        "restore it",
    ),
    "snapshot: a folder": (lambda b: b.of("pretrain", env__snapshot=str(b.folder)), "a folder", "name a file"),
    "weights: none": (lambda b: b.synthetic("finetune", init__weights="no/run"), "init.weights=no/run", "name another"),
    "weights: a folder of none": (
        lambda b: b.synthetic("finetune", init__weights=str(b.folder)),
        "not a finished training run",
        "name another",
    ),
    "weights: nothing published": (
        lambda b: b.of("finetune", init__weights="latest"),
        "nothing is published",
        "run: python experiments/pretrain.py",
    ),
    "weights: of another market": (
        lambda b: b.of("finetune", init__weights=str(b.tiny.root / "pretrain" / "whole" / "run")),
        "does not fit",
        "equal",
    ),
    "resume: none": (lambda b: b.synthetic("finetune", resume="no/run"), "resume=no/run: no run folder", "name one"),
    "resume: true, nothing there": (lambda b: b.of("finetune", resume=True), "no unfinished run of", "leave out"),
    "resume: another stage's run": (
        lambda b: b.synthetic("finetune", resume=str(b.tiny.root / "pretrain" / "whole" / "run")),
        "is a run of pretrain",
        "name another",
    ),
    "resume: a finished run": (
        lambda b: b.synthetic("finetune", resume=str(b.tiny.root / "finetune" / "whole" / "run")),
        "finished",
        "raise",
    ),
    "run: none": (lambda b: b.judge("no/run"), "run=no/run: no such folder", "name a run folder"),
    "run: latest, nothing there": (lambda b: b.judge("latest"), "run=latest: no finished run", "python experiments/"),
    "run: unfinished": (lambda b: b.judge(str(b.folder)), "not a finished run", "name another"),
    "run: a broken config": (lambda b: b.judge(broken(b, "a: [")), "config.yaml: cannot be read", "name a run folder"),
    "run: a config of something else": (
        lambda b: b.judge(broken(b, "- 1")),
        "not a FinFlow configuration",
        "name a run",
    ),
    "run: an unknown key": (
        lambda b: b.judge(broken(b, to_yaml(b.config("pretrain")) + "typo: 1\n")),
        "config.yaml: typo=1: unknown key",
        "known here",
    ),
}
TYPED: dict[str, Case] = {
    "unknown key": (lambda b: b.typed("pretrain", "algo.learning=1"), "algo.learning=1: unknown key", "known here"),
    "no such choice": (lambda b: b.typed("pretrain", "env=nasdaq"), "env=nasdaq: no such option", "choose one of"),
    "out of range": (lambda b: b.typed("finetune", "algo.gamma=1.5"), "algo.gamma=1.5: should be", "less than 1"),
    "not read here": (
        lambda b: b.typed("pretrain", "budget.episodes=9"),
        "does not read budget.episodes",
        "leave it out",
    ),
    "a project with a slash": (
        lambda b: b.typed("pretrain", "tracking=wandb", "tracking.wandb.project=desk/one"),
        "tracking.wandb.project=desk/one: ",
        "leave them out",
    ),
    "a folder in use": (lambda b: b.typed("pretrain", f'hydra.run.dir="{b.folder}"'), "not empty", "name a new folder"),
    "a folder that cannot be named": (lambda b: b.typed("pretrain", "hydra.run.dir=${nope}"), "hydra.run.dir", "nope"),
}
CASES = {**PRICES, **SERIES, **FILES, **TYPED}


def broken(bench: Bench, config: str) -> str:
    """A run folder with this configuration."""
    bench.put("run/summary.json", "{}")
    return str(Path(bench.put("run/config.yaml", config)).parent)


@pytest.mark.parametrize("name", CASES)
def test_malformed_input_is_refused_in_one_line(
    name: str, bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, place, remedy = CASES[name]
    monkeypatch.chdir(bench.folder)
    work = make(bench)
    capsys.readouterr()
    before = tree_hash(bench.folder, bench.tiny.root)
    assert code_of(work) == 2
    heard = capsys.readouterr()
    *warnings, said = heard.err.splitlines()
    assert all(text.startswith("warning: ") for text in warnings), heard.err
    assert said.startswith("error: ")
    assert place in said
    assert remedy in said.split(place, 1)[1]
    assert heard.out == ""
    assert tree_hash(bench.folder, bench.tiny.root) == before


def test_there_are_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(
    ("stage", "words", "fragment"),
    [
        ("pretrain", ["env=csv", "env.path=prices.csv"], "prices.csv:4:AA: 'n.a.' is not a number; "),
        ("finetune", ["resume=no/run"], "resume=no/run: no run folder and no checkpoint of one; "),
    ],
)
def test_the_same_from_a_shell(stage: str, words: list[str], fragment: str, bench: Bench) -> None:
    cell(bench, "n.a.")
    before = tree_hash(bench.folder)
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / f"{stage}.py"), *words],
        cwd=bench.folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {fragment}")
    assert done.stderr.count("\n") == 1
    assert tree_hash(bench.folder) == before
