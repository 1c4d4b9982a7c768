"""The same sweep by every launcher: the same table, and a job of a launcher that fails is a row like others."""

import csv
import re
import shutil
import sys
from pathlib import Path

import pytest

from finflow.cli.sweep import sweep
from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.stages.sweep import collect_sweep

from .conftest import COUNTED, FINISHED, ROOT, Command, call
from .tiny import SMALL

LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
}
THREADS = "\nthreads = os.environ['OMP_NUM_THREADS']\nwith open('threads', 'a') as file: file.write(threads + '\\n')"


def rows(folder: Path) -> list[dict[str, str]]:
    """Table of a sweep but for its times."""
    with collect_sweep(load("sweep", [f"dir='{folder}'"])).table.open(newline="") as file:
        return [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_eight_jobs_by_every_launcher_give_the_same_table(stub: Command, tmp_path: Path) -> None:
    tables: dict[str, list[dict[str, str]]] = {}
    for name, words in LAUNCHERS.items():
        body = f"if config.seed == 5: raise DivergedError('alpha is not finite')\n{COUNTED}{THREADS}"
        done = stub(body, "-m", "seed=range(8)", f"output_root={name}", *words)
        assert (done.returncode, "Jobs: 7 finished, 1 diverged" in done.stdout) == (1, True), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        (folder,) = (tmp_path / name).glob("pretrain/*/sweep-*")
        tables[name] = rows(folder)
    assert sorted(row["seed"] for row in tables["basic"]) == [str(seed) for seed in range(8)]
    assert tables["joblib"] == tables["basic"]
    assert tables["submitit_local"] == tables["basic"]
    assert set((tmp_path / "threads").read_text().split()) == {"1"}


@pytest.mark.slow
def test_eight_trained_jobs_by_every_launcher_give_the_same_bits(tmp_path: Path) -> None:
    line = [*SMALL, "-m", "seed=0,1", "algo.lr=1e-4,3e-4", "algo.gamma=0.9,0.95"]
    tables: dict[str, list[dict[str, str]]] = {}
    weights: dict[str, list[bytes]] = {}
    for name, words in LAUNCHERS.items():
        program = ROOT / "experiments" / "pretrain.py"
        done = call(tmp_path, program, *line, f"output_root={name}", *words, timeout=3600)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder,) = (tmp_path / name).glob("pretrain/*/sweep-*")
        tables[name] = rows(folder)
        weights[name] = [path.read_bytes() for path in sorted(folder.glob("*/weights.safetensors"))]
    assert len(set(weights["basic"])) == 8
    assert tables["joblib"] == tables["submitit_local"] == tables["basic"]
    assert weights["joblib"] == weights["submitit_local"] == weights["basic"]


@pytest.mark.parametrize("missing", ["hydra_plugins", "hydra_plugins.hydra_joblib_launcher"])
def test_a_launcher_that_is_not_installed_is_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hydra_plugins.hydra_joblib_launcher", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"joblib: not installed; python -m pip install -e '\.\[joblib\]'"):
        sweep("pretrain", ["seed=0,1", "hydra/launcher=joblib"], {})


def test_a_worker_that_is_gone_is_told_and_its_job_runs_again(stub: Command, tmp_path: Path) -> None:
    body = f"""if config.seed == 0 and not Path('healed').exists():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
{FINISHED}"""
    line = ("-m", "seed=0,1", "hydra/launcher=submitit_local", "hydra.sweep.dir=sweep")
    done = stub(body, *line)
    assert done.returncode == 1
    assert re.search(r"^Launcher: \w*Error: ", done.stderr, flags=re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert "error: 1 of 2 jobs not finished" in done.stderr
    (tmp_path / "healed").touch()
    again = stub(body, *line)
    assert (again.returncode, "1 finished before" in again.stdout) == (0, True), again.stderr


@pytest.mark.skipif(shutil.which("srun") is not None, reason="a machine of a cluster")
def test_slurm_is_asked_for_where_it_is(stub: Command, tmp_path: Path) -> None:
    done = stub(FINISHED, "-m", "seed=0,1", "hydra/launcher=submitit_slurm")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no srun on this machine; type it on a login node" in done.stderr
    assert not list(tmp_path.iterdir())
