"""The warm Python of these tests, `warm.py`, outlives no session: its stdin is closed when that ends, or is killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

from .conftest import WARM, started


def test_it_ends_with_who_started_it_and_so_does_what_it_was_asked(tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address = Path(folder) / "socket"
        server = started(address, ())
        ask = [sys.executable, "-S", "-E", str(WARM), "ask", str(address), sys.executable, str(tmp_path / "sleep.py")]
        with subprocess.Popen(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as asked:
            assert asked.stdout is not None
            assert asked.stdout.readline() == "up\n"
            try:
                server.communicate(timeout=5)
                assert asked.communicate(timeout=5)[0] == ""  # its end is that of the last who could write there
            finally:
                server.kill()
                asked.kill()
