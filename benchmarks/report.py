"""Results of a benchmark: a table on the screen, and a page with the machine and the command under results/."""

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "flax", "grain", "torch", "transformers")


def publish(
    page: Path, title: str, text: str, headers: Sequence[str], rows: Sequence[Sequence[str]], device: str = ""
) -> None:
    """Prints the rows and writes them to `page`, under `text` and what they were measured with."""
    table = Table(*headers, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    lines = [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *rows)]
    measured = f"`{command()}`, {', '.join(filter(None, (device, processor(), *versions())))}."
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"# {title}\n\n{measured}\n\n{text}\n\n" + "\n".join(lines) + "\n")


def command() -> str:
    """What was typed, from the folder of the repository."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def processor() -> str:
    """Number and name of the processors that this process may use."""
    names = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    name = names[0].partition(": ")[2] if names else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def versions() -> list[str]:
    """The packages that matter here, where they are installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
