"""Trains whatever an experiment describes; knows neither model nor loss.

`train(experiment, workdir)` runs to the experiment's last step, starting from the newest checkpoint in `workdir` if
there is one. Killed at any moment and started again it ends with the same parameters.
"""

import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree

from w2v2_jax.batches import AudioBatch, LabeledBatch
from w2v2_jax.checkpoints import Checkpoints, read_description
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.description import changes, describe
from w2v2_jax.metrics import Mean, MetricWriter, TrainingLog, merge
from w2v2_jax.progress import progress
from w2v2_jax.sharding import (
    DATA_PARALLEL,
    Rules,
    abstract,
    make_mesh,
    optimizer_shardings,
    param_shardings,
    put_batch,
    replicated,
)

Batch = AudioBatch | LabeledBatch
Metrics = dict[str, Mean]
_log = logging.getLogger(__name__)


@runtime_checkable
class Task(Protocol):
    """What is learned: a model with its objective."""

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Parameters, with the names of their axes."""

    def loss(self, params: PyTree, batch: Any, key: Key[Array, ""], step: Int[Array, ""]) -> tuple[Mean, Metrics]:
        """The objective as a sum with its weight, and metrics; all randomness follows from `key`."""

    def evaluate(self, params: PyTree, batch: Any, key: Key[Array, ""]) -> Metrics:
        """Metrics of a batch that isn't trained on."""


@runtime_checkable
class Batches(Protocol):
    """Endless batches whose place can be saved and restored."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]:
        """The place behind the last batch given, as JSON."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from that place."""


@runtime_checkable
class Dataset(Protocol):
    """What is learned from; both give the rows of this process."""

    def batches(self, seed: int) -> Batches:
        """Endless batches for training."""

    def epoch(self) -> Iterator[Batch]:
        """Everything once, for evaluation."""


@runtime_checkable
class Optimizer(Protocol):
    """How it is learned, given for how many steps."""

    def transformation(self, num_steps: int) -> optax.GradientTransformation:
        """What turns gradients into updates."""

    def learning_rate(self, step: Int[Array, ""], num_steps: int) -> Float[Array, ""]:
        """The rate of the update that follows `step` updates."""


def from_scratch(params: PyTree) -> PyTree:
    """Where a run starts from unless told otherwise: its random parameters."""
    return params


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a run depends on. A fork imports another one and states the difference with `override`.

    `init_from` makes the first parameters out of random ones. Every `log_every` steps the means of the metrics since
    are written, every `eval_every` steps `valid_data` is evaluated, every `save_every` steps the state is saved (and
    a row written, so that none spans a checkpoint); all three happen at the last step too. The newest
    `keep_checkpoints` are kept, and the one with the lowest `best_metric` of `valid_data`, if one is named, among those
    saved at a step that was also evaluated.
    """

    name: str
    task: Task
    train_data: Dataset
    valid_data: Dataset
    optimizer: Optimizer
    num_steps: int
    init_from: Callable[[PyTree], PyTree] = from_scratch
    seed: int = 0
    log_every: int = 100
    eval_every: int = 1000
    save_every: int = 1000
    keep_checkpoints: int = 2
    best_metric: str | None = None
    rules: Rules = DATA_PARALLEL

    def __post_init__(self):
        for name in ("num_steps", "log_every", "eval_every", "save_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")


class TrainState(NamedTuple):
    """All that a step changes. `step` counts the updates done; `key` never changes, steps fold their number in."""

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    key: Key[Array, ""]


def create_state(key: Key[Array, ""], *, task: Task, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    init_key, run_key = jax.random.split(key)
    params = nn.unbox(task.init(init_key))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), run_key)


def train_step(
    state: TrainState, batch: Batch, *, task: Task, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Metrics]:
    """One update; returns the new state and the task's metrics, still on the device."""

    def objective(params):
        mean, metrics = task.loss(params, batch, jax.random.fold_in(state.key, state.step), state.step)
        return mean.total, (mean.weight, metrics)

    sums, (weight, metrics) = jax.grad(objective, has_aux=True)(state.params)
    grads = jax.tree.map(lambda g: g / jnp.maximum(weight, 1), sums)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    audio_seconds = batch.num_samples.astype(jnp.float32).sum() / SAMPLE_RATE
    extra = {
        "grad_norm": Mean(optax.tree.norm(grads), jnp.ones(())),
        "audio_seconds": Mean(audio_seconds, jnp.ones(())),
    }
    return TrainState(state.step + 1, params, opt_state, state.key), metrics | extra


def evaluate(task: Task, params: PyTree, batches: Iterator[Batch], key: Key[Array, ""], mesh: Mesh) -> dict[str, float]:
    """Metrics over all `batches`; the same key gives the same masks."""
    step = _evaluation_step(task)
    parts: list[Metrics] = []
    for i, batch in enumerate(batches):
        parts.append(step(params, put_batch(batch, mesh), jax.random.fold_in(key, i)))
        jax.block_until_ready(parts[-2:-1])
    return {name: float(mean.value()) for name, mean in merge(*jax.device_get(parts)).items()}


@functools.lru_cache(maxsize=1)
def _evaluation_step(task: Task) -> Callable[..., Metrics]:
    return jax.jit(task.evaluate)


def train(
    experiment: Experiment, workdir: Path, quiet: bool = False, devices: Sequence[jax.Device] | None = None
) -> TrainState:
    """Runs the experiment to its end, from the newest checkpoint in `workdir` or from `init_from`.

    Batches are cut over `devices`, by default all there are.
    """
    mesh = make_mesh(devices or jax.devices())
    task = experiment.task
    optimizer = experiment.optimizer.transformation(experiment.num_steps)
    shardings, shapes = _layout(experiment, optimizer, mesh)
    batches = experiment.train_data.batches(experiment.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    description = describe(experiment)
    kept = (experiment.keep_checkpoints, experiment.best_metric)
    with contextlib.closing(Checkpoints(workdir, description, *kept)) as checkpoints:
        if restored := checkpoints.restore(abstract(shapes, shardings)):
            state, data_state, start = restored
            batches.set_state(data_state)
            for change in changes(read_description(workdir), description):
                _log.warning("going on from step %d with another setting: %s", start, change)
        else:
            create = functools.partial(create_state, task=task, optimizer=optimizer)
            state = jax.jit(create, out_shardings=shardings)(jax.random.key(experiment.seed))
            state = state._replace(params=jax.device_put(experiment.init_from(state.params), shardings.params))
        if jax.process_index() == 0:
            (workdir / "experiment.json").write_text(json.dumps(description, indent=1))
        step = jax.jit(
            functools.partial(train_step, task=task, optimizer=optimizer),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        )
        return _run(experiment, state, step, batches, mesh, checkpoints, workdir, quiet)


def _run(
    experiment: Experiment,
    state: TrainState,
    step_fn: Callable[..., tuple[TrainState, Metrics]],
    batches: Batches,
    mesh: Mesh,
    checkpoints: Checkpoints,
    workdir: Path,
    quiet: bool,
) -> TrainState:
    start, last = int(state.step), experiment.num_steps
    eval_key = jax.random.key(experiment.seed)
    writer = MetricWriter(workdir, resume_step=start)
    with progress(last, start, quiet or jax.process_index() > 0) as shown:
        log = TrainingLog(writer, shown, functools.partial(experiment.optimizer.learning_rate, num_steps=last))
        for step in range(start + 1, last + 1):
            state, metrics = step_fn(state, put_batch(next(batches), mesh))
            # Whatever is due from the step before is fetched while this one runs.
            log.flush_due()
            log.add(step, metrics, due=_due(step, experiment.log_every, last))
            values = None
            if _due(step, experiment.eval_every, last):
                log.flush_due()
                with log.paused():
                    values = evaluate(experiment.task, state.params, experiment.valid_data.epoch(), eval_key, mesh)
                writer.write(step, {f"valid/{name}": value for name, value in values.items()})
            if _due(step, experiment.save_every, last):
                log.flush()
                with log.paused():
                    checkpoints.save(step, state, batches.get_state(), values)
    writer.close()
    return state


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def _layout(
    experiment: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[TrainState, TrainState]:
    """Shardings and shapes of the state; nothing is allocated."""
    key = jax.random.key(experiment.seed)
    boxed = jax.eval_shape(experiment.task.init, key)
    shapes = jax.eval_shape(functools.partial(create_state, task=experiment.task, optimizer=optimizer), key)
    params = param_shardings(boxed, mesh, experiment.rules)
    opt_state = optimizer_shardings(shapes.opt_state, params, mesh)
    return TrainState(replicated(mesh), params, opt_state, replicated(mesh)), shapes
