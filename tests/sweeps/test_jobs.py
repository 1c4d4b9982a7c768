"""Jobs in processes of their own: one that ends badly sinks no other, and is the only one to run again."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from finflow.sweeps.folder import Status, SweepFolder, outcome

from .conftest import COUNTED, FINISHED, ROOT, Command, call, write_stub


def found_name(folder: Path, seed: str) -> str:
    """Name of a seed's job."""
    return next(job.name for job in SweepFolder(folder).manifest().jobs if job.values["seed"] == seed)


FATES = f"""with open('ran', 'a') as ran: ran.write(f'{{config.seed}}\\n')
healed = Path('healed').exists()
(folder / 'partial').touch()
if config.seed == 3 and not healed: raise DivergedError('critic_loss is not finite at update 7')
if config.seed == 5 and not healed: os.kill(os.getpid(), signal.SIGKILL)
(folder / 'partial').unlink()
{COUNTED}"""
"""A run that leaves what its sweep's table reads, unless it is the one that diverges or the one that is killed."""


def table(place: Path, folder: Path) -> tuple[list[dict[str, str]], str]:
    """What `experiments/sweep.py` makes of a folder: its rows, seconds left out, and what it prints."""
    done = call(place, ROOT / "experiments" / "sweep.py", f"dir={folder.relative_to(place)}")
    assert done.returncode == 0, done.stderr
    with (folder / "sweep.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)], done.stdout


def statuses(folder: Path) -> dict[str, Status]:
    """Status by seed."""
    sweep = SweepFolder(folder)
    return {job.values["seed"]: sweep.status(job.name) for job in sweep.manifest().jobs}


def test_of_twelve_jobs_a_diverged_and_a_killed_one_sink_no_other_and_run_again_alone(
    stub: Command, tmp_path: Path
) -> None:
    done = stub(FATES, "-m", "seed=range(12)")
    (folder,) = tmp_path.glob("outputs/pretrain/iql-sp500-all/sweep-*")
    assert done.returncode == 1
    short = folder.relative_to(tmp_path)
    again = f"Next: python experiments/pretrain.py -m seed={','.join(map(str, range(12)))}"
    assert done.stdout.splitlines()[-3:] == ["Jobs: 10 finished, 1 diverged, 1 killed", f"Run folder: {short}", again]
    assert f"Table: {short}/sweep.csv\nReport: {short}/sweep.html\n" in done.stdout
    assert "Best settings on validation days" in done.stdout
    assert re.search(r"Job 00-\w+ of 12: finished after \d+ s; 11 left, about \d+\.\d min\n", done.stdout)
    assert "error: 2 of 12 jobs not finished" in done.stderr
    assert "Traceback" not in done.stderr
    found = statuses(folder)
    assert (found["3"].state, found["3"].reason) == ("diverged", "critic_loss is not finite at update 7")
    assert (found["5"].state, found["5"].exit_code) == ("killed", -9)
    assert found["5"].reason.startswith("ended by SIGKILL")
    assert {found[s].state for s in found if s not in ("3", "5")} == {"finished"}
    kept = {path: path.stat().st_ino for path in folder.glob("*/summary.json")}
    assert len(kept) == 10
    assert (tmp_path / "ran").read_text().split() == [str(seed) for seed in range(12)]
    rows, printed = table(tmp_path, folder)
    ended = {row["seed"]: (row["state"], row["reason"]) for row in rows}
    assert ended["3"] == ("diverged", "critic_loss is not finite at update 7")
    assert ended["5"] == ("killed", "ended by SIGKILL; if nobody did that, the machine ran out of memory")
    assert [end for seed, end in ended.items() if seed not in ("3", "5")] == [("finished", "")] * 10
    assert f"Not finished: {found_name(folder, '3')} diverged: critic_loss is not finite at update 7" in printed
    assert printed.splitlines()[-1] == again

    (tmp_path / "healed").touch()
    again = stub(FATES, "seed=range(12)", "-m")
    assert again.returncode == 0, again.stderr
    assert "10 finished before" in again.stdout
    assert (tmp_path / "ran").read_text().split()[12:] == ["3", "5"]
    assert not list(folder.glob("*/partial"))  # what a failed attempt left is gone
    assert kept.items() <= {path: path.stat().st_ino for path in folder.glob("*/summary.json")}.items()
    assert stub(FATES, "-m", "seed=range(12)").returncode == 0
    assert len((tmp_path / "ran").read_text().split()) == 14
    made = {p.name for p in folder.iterdir() if not p.name[0].isdigit()}
    assert made == {"status", "sweep.json", "sweep.csv", "sweep.html", "best.yaml"}
    rows, printed = table(tmp_path, folder)
    assert [(row["seed"], row["state"], row["reason"]) for row in rows] == [(str(s), "finished", "") for s in range(12)]
    assert "Not finished" not in printed
    best = (folder / "best.yaml").relative_to(tmp_path)
    assert f"Again: python experiments/pretrain.py experiment={best}\n" in printed


def test_a_killed_job_goes_on_from_its_checkpoint_and_a_failed_one_begins_anew(stub: Command, tmp_path: Path) -> None:
    body = f"""said = f'{{config.seed}} {{config.resume}} {{(folder / "kept").exists()}}'
with open('ran', 'a') as ran: ran.write(said + '\\n')
if Path('healed').exists():
    {FINISHED}
else:
    (folder / 'checkpoints').mkdir()
    (folder / 'checkpoints' / '00001-epoch-5.safetensors').touch()
    (folder / 'kept').touch()
    if config.seed == 0: os.kill(os.getpid(), signal.SIGKILL)
    raise DivergedError('x')"""
    assert stub(body, "-m", "seed=0,1").returncode == 1
    (tmp_path / "healed").touch()
    assert stub(body, "-m", "seed=0,1").returncode == 0
    assert (tmp_path / "ran").read_text().splitlines() == [
        "0 None False",
        "1 None False",
        "0 True True",
        "1 None False",
    ]


def test_a_look_at_a_job_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    held, free = threading.Event(), threading.Event()

    def look() -> None:
        with sweep.lock("job"):
            held.set()
            free.wait(10)

    thread = threading.Thread(target=look)
    thread.start()
    held.wait(10)
    with sweep.lock("job") as descriptor:
        assert descriptor is None
    threading.Timer(0.2, free.set).start()
    with sweep.lock("job", patience=10) as descriptor:
        assert descriptor is not None
    thread.join()


def test_a_folder_of_other_jobs_or_settings_is_refused(stub: Command, tmp_path: Path) -> None:
    line = ("-m", "seed=0,1", "hydra.sweep.dir='my sweep'")
    assert stub(FINISHED, *line).returncode == 0
    other = stub(FINISHED, "-m", "seed=0,2", "hydra.sweep.dir='my sweep'")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "another command line" in other.stderr
    manifest = tmp_path / "my sweep" / "sweep.json"
    found = json.loads(manifest.read_text())
    found["settings"]["budget"]["epochs"] = 7
    manifest.write_text(json.dumps(found))
    changed = stub(FINISHED, *line)
    assert (changed.returncode, changed.stderr.count("\n")) == (2, 1)
    assert "budget.epochs=7, now 20" in changed.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    full = stub(FINISHED, "-m", "seed=0,1", "hydra.sweep.dir=full")
    assert (full.returncode, len(list((tmp_path / "full").iterdir()))) == (2, 1)
    file = stub(FINISHED, "-m", "seed=0,1", "hydra.sweep.dir=full/precious")
    assert (file.returncode, file.stdout) == (2, "")
    assert file.stderr == "error: hydra.sweep.dir=full/precious: a file; name a new folder\n"


def begin(place: Path, seeds: str, body: str) -> "tuple[subprocess.Popen[str], Path]":
    """A sweep under way whose first job has said so."""
    program = write_stub(place.with_name(f"{place.name}-stub.py"), body)
    line = [sys.executable, str(program), "-m", f"seed={seeds}", "hydra.sweep.dir=sweep"]
    sweep = subprocess.Popen(line, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (place / "begun").exists() and (place / "begun").read_text() != "")
    return sweep, place / "sweep"


def wait_for(true: "object", seconds: float = 60) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


SLEEPS = "Path('begun').write_text(str(os.getpid()))\ntime.sleep(120)"


@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_the_sweep_ends_its_job_and_starts_no_other(tmp_path: Path, told: signal.Signals, code: int) -> None:
    sweep, folder = begin(tmp_path, "0,1", SLEEPS)
    sweep.send_signal(told)
    sweep.communicate(timeout=60)
    assert sweep.returncode == code
    assert not alive(int((tmp_path / "begun").read_text()))
    assert {seed: status.state for seed, status in statuses(folder).items()} == {"0": "interrupted", "1": "waiting"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process cannot follow its parent elsewhere")
def test_a_job_ends_with_the_process_that_waits_for_it_and_runs_again(tmp_path: Path) -> None:
    body = f"""with open('ran', 'a') as ran: ran.write(f'{{config.seed}} ')
if not Path('healed').exists():
    Path('begun').write_text(str(os.getpid()))
    time.sleep(120)
{FINISHED}"""
    sweep, folder = begin(tmp_path, "0,1", body)
    job = int((tmp_path / "begun").read_text())
    assert {seed: status.state for seed, status in statuses(folder).items()} == {"0": "running", "1": "waiting"}
    sweep.kill()
    sweep.communicate(timeout=60)
    wait_for(lambda: not alive(job))
    found = statuses(folder)["0"]
    assert (found.state, found.reason) == ("killed", "its process is gone")
    (tmp_path / "healed").touch()
    again = call(tmp_path, Path(sweep.args[1]), *sweep.args[2:])
    assert again.returncode == 0, again.stderr
    assert {status.state for status in statuses(folder).values()} == {"finished"}
    assert (tmp_path / "ran").read_text() == "0 0 1 "


def test_a_job_that_is_being_run_is_left_alone(stub: Command, tmp_path: Path) -> None:
    line = ("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    assert stub("raise DivergedError('x')", *line).returncode == 1
    sweep = SweepFolder(tmp_path / "sweep")
    first, second = (job.name for job in sweep.manifest().jobs)
    sweep.run_dir(first).mkdir(exist_ok=True)
    (sweep.run_dir(first) / "at work").touch()
    sweep.record(first, Status("running", started="2000-01-01T00:00:00+00:00"))
    with sweep.lock(first) as held:
        assert held is not None
        done = stub(FINISHED, *line)
        assert done.returncode == 1
        assert (sweep.status(first).state, sweep.status(second).state) == ("running", "finished")
        assert (sweep.run_dir(first) / "at work").exists()
    assert sweep.status(first).state == "killed"


@pytest.mark.parametrize(
    ("code", "done", "printed", "state", "reason"),
    [
        (0, True, "", "finished", ""),
        (0, False, "", "failed", "ended without summary.json"),
        (5, False, "warning: x\nerror: alpha is not finite\n", "diverged", "alpha is not finite"),
        (3, False, "error: disk full\nerror: disk very full\n", "failed", "disk very full"),
        (2, False, "", "failed", "ended with exit code 2 and without a word"),
        (-9, False, "", "killed", "ended by SIGKILL; if nobody did that, the machine ran out of memory"),
        (-11, False, "", "killed", "ended by SIGSEGV"),
        (-15, False, "", "interrupted", "ended by SIGTERM"),
        (143, False, "", "interrupted", "ended by SIGTERM"),
        (130, False, "", "interrupted", "ended by SIGINT"),
    ],
)
def test_how_a_job_ended(code: int, done: bool, printed: str, state: str, reason: str) -> None:
    assert outcome(code, done, printed) == (state, reason)
