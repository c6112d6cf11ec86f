"""What was found, as tables to read and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from w2v2_jax.preflight.checks import Check, Verdict
from w2v2_jax.preflight.sizes import Size

STYLES = {Verdict.SOUND: "green", Verdict.INFO: "dim", Verdict.WARNING: "yellow", Verdict.ERROR: "bold red"}
LISTED = 10
"""Cases of a check that are listed below the table."""


def size_table(title: str, sizes: Mapping[str, Size]) -> Table:
    """A line a split."""
    table = Table("split", title=Text(title), title_justify="left")
    for name in ("utterances", "hours", "speakers", "median", "shortest", "longest"):
        table.add_column(name, justify="right")
    for split, size in sizes.items():
        unnamed = f" ({size.unnamed:,} unnamed)" if size.unnamed else ""
        cells = (
            split,
            f"{size.utterances:,}",
            f"{size.hours:,.2f}",
            f"{size.speakers:,}{unnamed}",
            f"{size.median_seconds:.2f} s",
            f"{size.shortest_seconds:.2f} s: {size.shortest}",
            f"{size.longest_seconds:.2f} s: {size.longest}",
        )
        table.add_row(*map(Text, cells))
    return table


def check_table(title: str, checks: Sequence[Check]) -> Table:
    """A line a check, with the first of its cases."""
    table = Table("check", "verdict", title=Text(title), title_justify="left")
    table.add_column("number", justify="right")
    table.add_column("example", overflow="fold")
    for check in checks:
        example = check.cases[0] if check.cases else ""
        verdict = Text(check.verdict, STYLES[check.verdict])
        table.add_row(Text(check.name), verdict, Text(_number(check)), Text(example))
    return table


def listing(checks: Sequence[Check]) -> str:
    """The first cases of each error, a line each; empty if there is none."""
    paragraphs = []
    for check in checks:
        if check.verdict == Verdict.ERROR:
            more = len(check.cases) - LISTED
            lines = [f"{check.name}:", *check.cases[:LISTED], *[f"and {more:,} more"] * (more > 0)]
            paragraphs.append("\n  ".join(lines) + "\n")
    return "".join(paragraphs)


def is_sound(checks: Sequence[Check]) -> bool:
    """Whether no check found an error."""
    return all(check.verdict != Verdict.ERROR for check in checks)


def write_json(path: Path, sizes: Mapping[str, Size], checks: Sequence[Check], figure: Path, **given: Any) -> None:
    """Writes everything, with all cases, and what was `given`."""
    fields = {
        **given,
        "sound": is_sound(checks),
        "splits": {split: size._asdict() for split, size in sizes.items()},
        "checks": [check._asdict() for check in checks],
        "figure": str(figure),
    }
    path.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(check: Check) -> str:
    unit = check.unit.removesuffix("s") if check.number == 1 and len(check.unit) > 1 else check.unit
    exact = float(check.number).is_integer()
    return f"{check.number:,.0f} {unit}" if exact else f"{check.number:,.3g} {unit}"
