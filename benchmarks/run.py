"""`make bench`: updates per CPU-second, ratios, memory, and the cost of the parts, into outputs/bench/results.json."""

import argparse
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.parts import parts
from benchmarks.race import PEERS_PYTHON, race

LIBRARIES = ("numpy", "torch")
PEERS = ("d3rlpy", "stable-baselines3", "sb3-contrib", "sbx-rl", "jax", "torch")


def versions(peers: bool) -> dict[str, str]:
    found = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    if peers:
        ask = f"from importlib.metadata import version; print(*map(version, {PEERS!r}))"
        said = subprocess.run([PEERS_PYTHON, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
        found |= {f"peers: {name}": number for name, number in zip(PEERS, said, strict=True)}
    return found


def machine() -> str:
    info = Path("/proc/cpuinfo")
    models = [line.split(": ")[1] for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{models[0]}, {len(models)} logical cores, {platform.system()}" if models else platform.platform()


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| contender | updates a CPU-second | fastest decile | peak memory, MiB |", "| --- | --- | --- | --- |"]
    for name, row in results["learners"].items():
        fast = f"{row['updates_per_cpu_second']:.1f} | {row['fastest_decile']:.1f}"
        lines.append(f"| {name} | {fast} | {row['peak_mib']:.0f} |")
    if results["ratios"]:
        lines += ["", "| ratio, round by round | median | 10 % to 90 % |", "| --- | --- | --- |"]
        for name, row in results["ratios"].items():
            lines.append(f"| {name} | {row['median']:.2f} | {row['p10']:.2f} to {row['p90']:.2f} |")
    rest = results.get("parts")
    if rest:
        lines += ["", "| part | cost |", "| --- | --- |"]
        for source, row in rest["environment_steps_per_cpu_second"].items():
            speed = f"{row['median']:,.0f} steps a CPU-second, fastest decile {row['fastest_decile']:,.0f}"
            lines.append(f"| environment, 64 episodes, 20 names, {source} | {speed} |")
        for row in rest["features_and_priors"]:
            size = f"{row['days'] / 252:.0f} years x {row['assets']} names"
            lines.append(f"| features, {size} | {row['features']:.1f} CPU-s |")
            lines.append(f"| priors, {size} | {row['priors']:.1f} CPU-s |")
        lines.append(f"| backtest of one policy, 25 years | {rest['backtest_25_years']:.2f} CPU-s |")
        lines.append(f"| `--help` | {rest['start_up']['help']:.1f} s |")
        lines.append(
            f"| pretrain from the command line to its end with one update | {rest['start_up']['one_update']:.1f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--rounds", type=int, default=20, help="bursts of half a CPU-second of every contender")
    parser.add_argument("--peers", action="store_true", help="other libraries as well, from .venv-peers")
    parser.add_argument("--compiled", action="store_true", help="compiled learners as well: minutes before they start")
    parser.add_argument("--learners-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/results.json"))
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "versions": versions(options.peers)}
    results |= race(options.rounds, options.peers, options.compiled)
    if not options.learners_only:
        results["parts"] = parts()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1))
    print(table(results))
    print(f"\nResults: {options.out}")


if __name__ == "__main__":
    main()
