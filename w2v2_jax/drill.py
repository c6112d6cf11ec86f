"""`w2v2 drill`: whether a run that is killed over and over ends as one that isn't, to the last bit.

The experiment runs twice in processes of its own, once unbroken and once while it is killed at random moments and
started again until it is done. Whatever depends on the experiment alone has to be equal then: every row of metrics and
every array of the newest checkpoint.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from w2v2_jax.checkpoints import is_saving, newest_step, read_arrays
from w2v2_jax.metrics import TIMED, Row, read_rows

STARTING, TRAINING, SAVING, EVALUATING = "starting", "training", "saving", "evaluating"

_KINDS = (
    (signal.SIGKILL, SAVING),
    (signal.SIGTERM, TRAINING),
    (signal.SIGKILL, EVALUATING),
    (signal.SIGTERM, STARTING),
    (signal.SIGKILL, TRAINING),
    (signal.SIGTERM, SAVING),
    (signal.SIGKILL, STARTING),
    (signal.SIGTERM, EVALUATING),
)
_POLL_SECONDS = 0.005


class DrillError(OSError):
    """A run ended by itself before it was done."""


class Run(NamedTuple):
    """What is drilled: `command` trains in the folder that follows it, and evaluates every `eval_every` steps."""

    command: Sequence[str]
    num_steps: int
    eval_every: int


class Kill(NamedTuple):
    """The end of one life of a run: by which signal, doing what, how far it was and from where the next one went on."""

    signal: signal.Signals
    moment: str
    reached: int
    saved: int


class Outcome(NamedTuple):
    """What a drill showed; `difference` is the first one between the two runs, empty where they are equal."""

    kills: Sequence[Kill]
    num_rows: int
    num_arrays: int
    seconds: float
    difference: str


def drill(run: Run, workdir: Path, num_kills: int, seed: int = 0, console: Console | None = None) -> Outcome:
    """Kills `run` up to `num_kills` times (fewer if it is done before) at moments that `seed` decides.

    The two runs and their output are left in `workdir`.

    Raises:
        ValueError: where `workdir` isn't empty, or there is nothing to do.
        DrillError: where the run fails without having been killed.
    """
    if num_kills < 1:
        raise ValueError(f"kills={num_kills}: give at least 1")
    if workdir.exists() and any(workdir.iterdir()):
        raise ValueError(f"{workdir} isn't empty and a drill begins with nothing; remove it or give another folder")
    workdir.mkdir(parents=True, exist_ok=True)
    console = console or Console()
    began = time.monotonic()
    unbroken, broken = workdir / "unbroken", workdir / "broken"
    with _ending_children(), console.status("") as status:
        watch, kills = _Watch(run, status.update), []
        _run_to_the_end(run, unbroken, watch)
        console.print(f"unbroken: {run.num_steps} steps in {time.monotonic() - began:.0f} s")
        for kill in _killed(run, broken, _plan(run, num_kills, random.Random(seed)), watch):
            kills.append(kill)
            console.print(
                f"{len(kills)}/{num_kills}: {kill.signal.name} while {kill.moment} at step {kill.reached}; "
                f"goes on from {kill.saved}"
            )
        _run_to_the_end(run, broken, watch)
        status.update("comparing")
        num_rows, num_arrays = len(read_rows(unbroken / "metrics.jsonl")), len(read_arrays(unbroken))
        difference = first_difference(broken, unbroken)
    return Outcome(kills, num_rows, num_arrays, time.monotonic() - began, difference)


def first_difference(run: Path, other: Path) -> str:
    """Where two finished runs differ in what doesn't depend on time, metrics first; empty where they don't."""
    differences = (*_row_differences(run, other), *_array_differences(run, other))
    return next(iter(differences), "")


def table(outcome: Outcome) -> Table:
    """How often the run was killed doing what, and how many steps had to be done again for it."""
    shown = Table("while", title="Kills", title_justify="left")
    for number in (signal.SIGKILL, signal.SIGTERM):
        shown.add_column(number.name, justify="right")
        shown.add_column("steps lost", justify="right")
    for moment in (STARTING, TRAINING, SAVING, EVALUATING):
        cells = []
        for number in (signal.SIGKILL, signal.SIGTERM):
            kills = [kill for kill in outcome.kills if (kill.signal, kill.moment) == (number, moment)]
            cells += [str(len(kills)), str(sum(kill.reached - kill.saved for kill in kills))]
        shown.add_row(moment, *cells)
    return shown


def summary(outcome: Outcome) -> str:
    """The verdict in a sentence."""
    kills = f"{len(outcome.kills)} kills in {outcome.seconds:.0f} s"
    if outcome.difference:
        return f"{kills}; the run differs from the unbroken one: {outcome.difference}"
    return (
        f"{kills}; all {outcome.num_rows} rows of metrics and {outcome.num_arrays} arrays of the newest checkpoint are "
        "equal to those of the unbroken run in every bit"
    )


# What a run is doing, as its files tell.


class _Trace(NamedTuple):
    """`file` is the identity of metrics.jsonl: a run that goes on begins by writing it anew."""

    file: int
    step: int
    saved: int
    is_saving: bool
    is_evaluating: bool

    def moment(self, before: "_Trace") -> str:
        if self.is_saving and self.file != before.file:
            return SAVING
        if self.file == before.file or self.step <= before.saved:
            return STARTING
        return EVALUATING if self.is_evaluating else TRAINING


def _look(run: Run, folder: Path) -> _Trace:
    metrics = folder / "metrics.jsonl"
    row = _last_row(metrics)
    step = row.get("step", 0)
    is_due = step > 0 and (step % run.eval_every == 0 or step == run.num_steps)
    is_evaluating = is_due and not any(name.startswith("valid/") for name in row)
    file = metrics.stat().st_ino if metrics.exists() else 0
    return _Trace(file, step, newest_step(folder), is_saving(folder), is_evaluating)


def _last_row(metrics: Path, longest: int = 100_000) -> Row:
    """The last whole row; empty where there is none. Rows are shorter than `longest` bytes."""
    if not metrics.exists():
        return {}
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - longest))
        *lines, _torn = file.read().split(b"\n")
    return json.loads(lines[-1]) if lines else {}


# The runs.


class _Aim(NamedTuple):
    """When to kill: at a moment seen between two steps, or else at the latter; then `patience` of its length later."""

    signal: signal.Signals
    moment: str
    earliest: float
    latest: float
    patience: float

    def is_met(self, trace: _Trace, before: _Trace) -> bool:
        is_started = trace.file != before.file
        step = trace.step if is_started else before.saved
        is_seen = step >= self.earliest and trace.moment(before) == self.moment
        return is_seen or self.moment == STARTING or (is_started and step >= self.latest)


def _plan(run: Run, num_kills: int, rng: random.Random) -> list[_Aim]:
    """Spread over the run, so that it lives long enough for all of them; as many of each kind as of any other.

    A moment is waited for until it must have come, by when an evaluation has.
    """
    kinds = [_KINDS[i % len(_KINDS)] for i in range(num_kills)]
    rng.shuffle(kinds)
    share = run.num_steps / num_kills
    earliest = [share * (i + 0.8 * rng.random()) for i in range(num_kills)]
    latest = [min(step + run.eval_every, 0.95 * run.num_steps) for step in earliest]
    patience = [rng.random() ** 2 for _ in kinds]  # Moments differ in length: more of the early than of the late.
    return [_Aim(*kind, *rest) for kind, *rest in zip(kinds, earliest, latest, patience, strict=True)]


class _Watch:
    """Follows lives of a run; knows for how many seconds it last did what."""

    def __init__(self, run: Run, tell: Callable[[str], None]):
        self._run, self._tell = run, tell
        self._seconds: dict[str, float] = {}

    def traces(self, folder: Path, process: subprocess.Popen, before: _Trace) -> Iterator[_Trace]:
        """What the run leaves behind, until it ends."""
        last, since = STARTING, time.monotonic()
        while process.poll() is None:
            trace, now = _look(self._run, folder), time.monotonic()
            if trace.moment(before) != last:
                self._seconds[last] = now - since
                last, since = trace.moment(before), now
            self._tell(f"{folder.name}: {last}, step {trace.step} of {self._run.num_steps}")
            yield trace
            time.sleep(_POLL_SECONDS)

    def wait(self, folder: Path, process: subprocess.Popen, before: _Trace, aim: _Aim) -> None:
        """Returns when it is time to kill."""
        traces = self.traces(folder, process, before)
        for trace in traces:
            if aim.is_met(trace, before):
                break
        patience = time.monotonic() + aim.patience * self._seconds.get(aim.moment, 0.0)
        for trace in traces:
            if time.monotonic() > patience or trace.moment(before) != aim.moment:
                break


def _run_to_the_end(run: Run, folder: Path, watch: _Watch) -> None:
    before = _look(run, folder)
    with _life(run, folder) as process:
        for _ in watch.traces(folder, process, before):
            pass
    _check_done(run, folder, process.returncode)


def _killed(run: Run, folder: Path, aims: Sequence[_Aim], watch: _Watch) -> Iterator[Kill]:
    """One life for each aim; ends when the run is done."""
    for aim in aims:
        before = _look(run, folder)
        with _life(run, folder) as process:
            watch.wait(folder, process, before, aim)
            seen = _look(run, folder)
            process.send_signal(aim.signal)
            process.wait()
        left = _look(run, folder)
        if process.returncode not in (0, -aim.signal) or (process.returncode == 0 and left.saved == run.num_steps):
            return _check_done(run, folder, process.returncode)
        # What was killed outright left its traces as they were; what was told to end has tidied up.
        seen = left if aim.signal == signal.SIGKILL else seen
        moment = seen.moment(before)
        reached = before.saved if moment == STARTING else seen.step
        yield Kill(aim.signal, moment, max(reached, left.saved), left.saved)


def _check_done(run: Run, folder: Path, status: int) -> None:
    if status != 0 or newest_step(folder) != run.num_steps:
        log = folder.with_suffix(".log")
        last_words = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise DrillError(
            f"the run ended by itself, with status {status} and step {newest_step(folder)} of {run.num_steps} saved; "
            f"see {log}, which ends: {' '.join(last_words)}"
        )


@contextlib.contextmanager
def _ending_children() -> Iterator[None]:
    """A drill that is told to end does so by an exception: what it has started is ended on the way."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _life(run: Run, folder: Path) -> Iterator[subprocess.Popen]:
    """One process that trains, in a group of its own: neither Ctrl-C nor a signal to the drill reaches it."""
    # A run that is started again compiles nothing anew.
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "programs"), **os.environ}
    with folder.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [*run.command, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# What has to be equal.


def _row_differences(run: Path, other: Path) -> Iterator[str]:
    rows, expected = (read_rows(folder / "metrics.jsonl") for folder in (run, other))
    for number, (row, wanted) in enumerate(zip(rows, expected, strict=False), start=1):
        for name in [*wanted, *(row.keys() - wanted.keys())]:
            # As text, in which NaN equals NaN.
            if name not in TIMED and str(row.get(name)) != str(wanted.get(name)):
                yield f"{name} in row {number} of metrics.jsonl is {row.get(name)}, not {wanted.get(name)}"
    if len(rows) != len(expected):
        yield f"metrics.jsonl has {len(rows)} rows, not {len(expected)}"


def _array_differences(run: Path, other: Path) -> Iterator[str]:
    if newest_step(run) != newest_step(other):
        yield f"the newest checkpoint is of step {newest_step(run)}, not {newest_step(other)}"
    arrays, expected = read_arrays(run), read_arrays(other)
    for name in sorted(arrays.keys() ^ expected.keys()):
        yield f"only one of them has {name}"
    for name in sorted(arrays.keys() & expected.keys()):
        array, wanted = np.asarray(arrays[name]), np.asarray(expected[name])
        if (array.dtype, array.shape) != (wanted.dtype, wanted.shape):
            yield f"{name} is {array.dtype}{list(array.shape)}, not {wanted.dtype}{list(wanted.shape)}"
        elif array.tobytes() != wanted.tobytes():
            yield f"{name} has other bits in {_differing(array, wanted)} of {array.size} numbers"


def _differing(array: np.ndarray, other: np.ndarray) -> int:
    return sum(x.tobytes() != y.tobytes() for x, y in zip(array.flat, other.flat, strict=True))
