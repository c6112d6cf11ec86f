"""Of the benchmarks, those whose result is no matter of time."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name, results, *options):
    script = [sys.executable, BENCHMARKS / f"{name}.py", "--results", results, *options]
    # As a user runs them: on one device.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    subprocess.run(script, check=True, env=environment, cwd=results, timeout=600)
    [page] = results.glob("*.md")
    return [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("|")][2:]


def test_loss_memory_reaches_its_goal(tmp_path):
    """Bytes of compiled programs, which are no matter of time."""
    rows = run("loss_memory", tmp_path, "--clips", "2")
    assert len(rows) == 4
    assert all(float(row[-1].rstrip(" |")) >= 25 for row in rows)
