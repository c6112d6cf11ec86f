"""Metrics as sums with weights, when they are due, and where they go: a JSONL file, TensorBoard, Weights & Biases."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import operator
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float, PyTree

Row = dict[str, Any]
_log = logging.getLogger(__name__)


class Mean(NamedTuple):
    """A mean kept as a sum and its weight, so that means over any split of the data add up exactly."""

    total: Float[jax.typing.ArrayLike, ""]
    weight: Float[jax.typing.ArrayLike, ""]

    def value(self) -> Float[jax.typing.ArrayLike, ""]:
        """The mean; NaN where nothing was counted."""
        with np.errstate(invalid="ignore"):
            return self.total / self.weight


def merge(*metrics: PyTree) -> PyTree:
    """The metrics of several batches, of one structure, as those of one batch: totals and weights are added."""
    return functools.reduce(lambda a, b: jax.tree.map(operator.add, a, b), metrics)


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a metrics file, without a last one that a killed run left incomplete.

    Raises:
        ValueError: for a line before the last that isn't JSON.
    """
    *lines, _torn = Path(path).read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} holds a line that isn't JSON ({error.doc!r}); remove it") from error


@runtime_checkable
class _Sink(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricWriter:
    """Writes named values at a step to `workdir`, from the first process of a run only.

    `metrics.jsonl` holds one object a line, "step" first, on disk as soon as it is written. TensorBoard files appear in
    the same folder where tensorboard is installed; Weights & Biases gets the values where wandb is installed and
    logged in, or WANDB_MODE is set.

    `resume_step` is the step of the checkpoint that a run goes on from, 0 for a new run: what an earlier run wrote
    beyond it is dropped, so that the file of a resumed run is that of an unbroken one. Rows up to a checkpoint's
    step are therefore to be written before that checkpoint is saved.
    """

    def __init__(self, workdir: str | Path, resume_step: int = 0):
        if "://" in str(workdir):
            raise ValueError(
                f"metrics are appended line by line, which {workdir} can't do; give a local or mounted folder"
            )
        Path(workdir).mkdir(parents=True, exist_ok=True)
        kinds = (_Jsonl, *_tensorboard(), *_wandb()) if jax.process_index() == 0 else ()
        self._sinks: list[_Sink] = [kind(Path(workdir), resume_step) for kind in kinds]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes scalars by name, e.g. {"train/loss": 6.66}, for a run after `step` updates."""
        values = {name: float(value) for name, value in values.items()}
        for sink in self._sinks:
            sink.write(step, values)

    def close(self) -> None:
        """Ends the files; the writer can't be used afterwards."""
        for sink in self._sinks:
            sink.close()


RATES = {"audio_seconds": ("audio_hours_per_second", 3600), "tokens": ("tokens_per_second", 1)}
"""The speed of training in a row, and how many of what a step has seen are one of its unit."""

TIMED = tuple(name for name, _ in RATES.values())
"""What a row says of the machine's time; all else of it depends on the experiment alone."""

SHOWN = ("loss", "contrastive_accuracy", "code_perplexity", "grad_norm", *TIMED)
"""What the progress line has room for, of what a task measures."""


@runtime_checkable
class Shown(Protocol):
    """Where a person sees the values."""

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows `values` after `step` updates."""


class TrainingLog:
    """Metrics of the steps since the last row, left on the device until the row is due.

    A row has the mean of every metric, the hours of audio or the tokens trained on a second, and the learning rate of
    its last step, `learning_rate(updates before it)`. Steps measure `audio_seconds` or `tokens`. A run that ends
    between two rows saves `get_state()`, and the one that goes on writes the row that the first would have written.
    """

    def __init__(self, writer: MetricWriter, shown: Shown, learning_rate: Callable[[int], Any]):
        self._writer, self._shown, self._learning_rate = writer, shown, learning_rate
        self._since: list[dict[str, Mean]] = []
        self._step, self._is_due, self._began = 0, False, 0.0
        self._earlier, self._earlier_seconds = {}, 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time within doesn't count against the speed of training."""
        jax.block_until_ready(self._since[-1:])
        stopped = time.monotonic()
        yield
        self._began += time.monotonic() - stopped

    def add(self, step: int, metrics: dict[str, Mean], due: bool) -> None:
        """Takes what step `step` measures; with `due` a row ends here."""
        # Two steps in flight keep the device busy; more would only fill its memory with batches.
        jax.block_until_ready(self._since[-1:])
        # The clock starts when the first step is compiled.
        self._start_clock()
        self._since.append(metrics)
        self._step, self._is_due = step, due

    def flush_due(self) -> None:
        """Writes the row that is due, if one is."""
        if self._is_due:
            self.flush()

    def flush(self) -> None:
        """Writes a row of what was added since the last one, if anything was."""
        if not self._since:
            return
        metrics = self._sums()
        values = {name: float(mean.value()) for name, mean in metrics.items()}
        now = time.monotonic()
        for amount in RATES.keys() & metrics.keys():
            rate, unit = RATES[amount]
            values[rate] = float(metrics[amount].total) / unit / (now - self._began)
        values["learning_rate"] = float(self._learning_rate(self._step - 1))
        self._writer.write(self._step, values)
        self._shown.update(self._step, {name: values[name] for name in SHOWN if name in values})
        self._since, self._is_due, self._began = [], False, now
        self._earlier = {}

    def get_state(self) -> Row:
        """What was added since the last row, as JSON."""
        if not (self._since or self._earlier):
            return {}
        self._start_clock()
        sums = {name: [_numbered(x) for x in mean] for name, mean in self._sums().items()}
        return {"seconds": time.monotonic() - self._began, "sums": sums}

    def set_state(self, state: Row) -> None:
        """Takes the next row to have begun with what `get_state` gave."""
        sums = state.get("sums", {})
        self._earlier = {name: Mean(*(np.dtype(kind).type(x) for x, kind in mean)) for name, mean in sums.items()}
        self._earlier_seconds = state.get("seconds", 0.0)

    def _start_clock(self) -> None:
        self._began = self._began or time.monotonic() - self._earlier_seconds

    def _sums(self) -> dict[str, Mean]:
        since = jax.device_get(self._since)
        # A run may go on with a task that measures something else: its row begins anew.
        is_continued = not since or self._earlier.keys() == since[0].keys()
        return merge(*[self._earlier] * bool(self._earlier and is_continued), *since)


def _numbered(x: jax.typing.ArrayLike) -> tuple[float | int, str]:
    return np.asarray(x).item(), np.asarray(x).dtype.name


class _Jsonl:
    def __init__(self, workdir: Path, resume_step: int):
        path = workdir / "metrics.jsonl"
        earlier = read_rows(path) if resume_step and path.exists() else []
        kept = "".join(_line(row) for row in earlier if row["step"] <= resume_step)
        rewritten = path.with_suffix(".tmp")
        rewritten.write_text(kept, encoding="utf-8")
        rewritten.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(_line({"step": step, **values}))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _tensorboard() -> list[type]:
    return [_TensorBoard] if importlib.util.find_spec("tensorboard") else []


class _TensorBoard:
    def __init__(self, workdir: Path, resume_step: int):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = event_pb2.Event
        self._writer = EventFileWriter(str(workdir))
        # Makes TensorBoard forget what an earlier run wrote from this step on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(step=resume_step + 1, wall_time=time.time(), session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        event = self._event(step=step, wall_time=time.time())
        for name, value in values.items():
            event.summary.value.add(tag=name, simple_value=value)
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _wandb() -> list[type]:
    if not importlib.util.find_spec("wandb"):
        return []
    if not ("WANDB_MODE" in os.environ or _wandb_key()):
        _log.warning("Weights & Biases is installed but not logged in, and gets nothing; run `wandb login` to use it")
        return []
    return [_WandB]


def _wandb_key() -> str | None:
    """The key of WANDB_API_KEY, or else what `wandb login` left; of another version of wandb nothing may be known."""
    import wandb

    return os.environ.get("WANDB_API_KEY") or getattr(getattr(wandb, "api", None), "api_key", None)


class _WandB:
    def __init__(self, workdir: Path, resume_step: int):
        import wandb

        # One folder is one run there too, however often it is resumed.
        run_id = hashlib.sha1(str(workdir.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(id=run_id, name=workdir.name, dir=str(workdir), resume="allow")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
