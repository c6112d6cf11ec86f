"""What a run says while it trains: a bar in a terminal, plain lines in a log, or nothing."""

import datetime
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import rich.console
import rich.live
import rich.table
from rich.progress_bar import ProgressBar


@runtime_checkable
class Progress(Protocol):
    """Shows how far a run is; `with progress(...) as shown: shown.update(step, {"loss": 6.66})`."""

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows `values` by name, in the order given, and the time left, after `step` updates in all."""

    def __enter__(self) -> "Progress": ...

    def __exit__(self, *exception: object) -> None: ...


def progress(total: int, start: int = 0, quiet: bool = False) -> Progress:
    """Progress to `total` updates of a run that begins with `start` of them done.

    A terminal gets a bar, anything else one line an update (both on standard error), `quiet` nothing at all.
    """
    if quiet:
        return _Quiet()
    console = rich.console.Console(stderr=True)
    return _Bar(total, start, console) if console.is_terminal else _Lines(total, start)


class _Quiet:
    def update(self, step: int, values: Mapping[str, Any]) -> None:
        pass

    def __enter__(self) -> "_Quiet":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class _Lines(_Quiet):
    def __init__(self, total: int, start: int):
        self._clock = _Clock(total, start)
        self._total = total

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        columns = [f"step {step}/{self._total}", *_columns(values), f"left {self._clock.left(step)}"]
        print("  ".join(columns), file=sys.stderr, flush=True)


class _Bar(_Quiet):
    def __init__(self, total: int, start: int, console: rich.console.Console):
        self._clock = _Clock(total, start)
        self._total = total
        self._live = rich.live.Live(console=console, auto_refresh=False)

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        columns = [f"{step}/{self._total}", *_columns(values), f"left {self._clock.left(step)}"]
        row = rich.table.Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(self._total, step, width=20), *columns)
        self._live.update(row, refresh=True)

    def __enter__(self) -> "_Bar":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()


class _Clock:
    def __init__(self, total: int, start: int):
        self._total, self._start, self._began = total, start, time.monotonic()

    def left(self, step: int) -> str:
        """Time to go at the mean pace of this run so far, as h:mm:ss."""
        if step <= self._start:
            return "?"
        pace = (time.monotonic() - self._began) / (step - self._start)
        return str(datetime.timedelta(seconds=round(pace * (self._total - step))))


def _columns(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in values.items()]
