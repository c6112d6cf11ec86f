"""One update of the parameters, as a program for a mesh of devices."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, PyTree

from w2v2_jax.batches import Batch, example_keys
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.experiment import Experiment, Metrics, Task
from w2v2_jax.metrics import Mean
from w2v2_jax.sharding import abstract, optimizer_shardings, param_shardings, place, placing, replicated

SKIPPED_IN_A_ROW = "skipped_in_a_row"
"""The metric by which a run that is lost is found."""

AMOUNTS = {"num_samples": ("audio_seconds", SAMPLE_RATE), "num_tokens": ("tokens", 1)}
"""The metric of how much a batch holds, and its unit, by what the batch has lengths in."""


class TrainState(NamedTuple):
    """All that a step changes. `step` counts the batches seen, `skipped` those in a row, up to now, that changed
    nothing else; `key` never changes, steps fold their number in."""

    step: Int[Array, ""]
    skipped: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    key: Key[Array, ""]


def create_state(key: Key[Array, ""], *, task: Task, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    init_key, run_key = jax.random.split(key)
    params = nn.unbox(task.init(init_key))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, params, optimizer.init(params), run_key)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    task: Task,
    optimizer: optax.GradientTransformation,
    accumulation_steps: int = 1,
    lay: Callable[[PyTree], PyTree] = lambda gradients: gradients,
) -> tuple[TrainState, Metrics]:
    """One update; returns the new state and the task's metrics, still on the device.

    `lay` says where gradients are to lie. A step whose loss or gradient isn't finite leaves parameters and optimizer
    as they were, and its metrics don't count.
    """
    keys = example_keys(jax.random.fold_in(state.key, state.step), len(batch[0]))
    parts = micro_batches((batch, place(keys, "batch")), accumulation_steps, task.rows_together)

    def objective(params, batch, keys):
        mean, metrics = task.loss(params, batch, keys, state.step)
        return mean.total, (mean, metrics)

    def add(gradients, part):
        of_part, measured = jax.grad(objective, has_aux=True)(state.params, *part)
        return lay(jax.tree.map(jnp.add, gradients, of_part)), measured

    nothing = lay(jax.tree.map(jnp.zeros_like, state.params))
    if accumulation_steps == 1:
        # Without a loop: within one XLA leaves the gradients of convolutions in a form that is slow on CPUs.
        sums, (mean, metrics) = add(nothing, jax.tree.map(lambda x: x[0], parts))
    else:
        sums, measured = jax.lax.scan(add, nothing, parts)
        mean, metrics = jax.tree.map(lambda x: x.sum(axis=0), measured)
    gradients = jax.tree.map(lambda g: g / jnp.maximum(mean.weight, 1), sums)
    gradient_norm = optax.tree.norm(gradients)
    is_finite = jnp.isfinite(mean.total) & jnp.isfinite(gradient_norm)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    changed = optax.apply_updates(state.params, updates), opt_state
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(is_finite, new, old), changed, (state.params, state.opt_state)
    )
    skipped = jnp.where(is_finite, 0, state.skipped + 1)
    metrics |= {"grad_norm": Mean(gradient_norm, jnp.ones(()))}
    metrics = jax.tree.map(lambda x: jnp.where(is_finite, x, 0), metrics)
    once = jnp.ones(())
    lengths, (amount, unit) = next((getattr(batch, name), AMOUNTS[name]) for name in batch._fields if name in AMOUNTS)
    metrics |= {
        amount: Mean(lengths.astype(jnp.float32).sum() / unit, once),
        "skipped": Mean(1.0 - is_finite, once),
        SKIPPED_IN_A_ROW: Mean(skipped, once),
    }
    return TrainState(state.step + 1, skipped, params, opt_state, state.key), metrics


def micro_batches(rows: PyTree, num_parts: int, rows_together: int | float) -> PyTree:
    """Arrays of rows [row ...] as parts [part row ...], of which each has some rows of every device.

    Groups of `rows_together` consecutive rows stay whole and in their order; group g goes to part g modulo
    `num_parts`, for which no row has to move where groups are whole on a device.
    """
    num_rows = len(jax.tree.leaves(rows)[0])
    together = int(min(rows_together, num_rows))
    if num_rows % (num_parts * together):
        raise ValueError(
            f"a batch of {num_rows} rows can't be cut into accumulation_steps={num_parts} equal parts of groups of "
            f"{together} rows that are looked at together; make the batch a multiple of {num_parts * together} rows"
        )

    def cut(x):
        groups = x.reshape(num_rows // (num_parts * together), num_parts, together, *x.shape[1:])
        parts = groups.swapaxes(0, 1).reshape(num_parts, num_rows // num_parts, *x.shape[1:])
        return place(parts, None, "batch")

    return jax.tree.map(cut, rows)


class Program(NamedTuple):
    """What a run does on a mesh, compiled when it is first called.

    `create` makes the first state from a key, `step` makes of a state (which it consumes) and a batch the next state
    and metrics, `evaluate` of parameters, a batch and a key its metrics. `state` has the shapes of a state and where
    its arrays lie; nothing is allocated.
    """

    mesh: Mesh
    state: TrainState
    create: Callable[[Key[Array, ""]], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluate: Callable[[PyTree, Batch, Key[Array, ""]], Metrics]


def make_program(experiment: Experiment, mesh: Mesh) -> Program:
    """The programs of an experiment for a mesh, which may be one of devices that aren't here."""
    task, rules = experiment.task, experiment.rules
    optimizer = experiment.optimizer.transformation(experiment.num_steps)
    key = jax.random.key(experiment.seed)
    create = functools.partial(create_state, task=task, optimizer=optimizer)
    shapes = jax.eval_shape(create, key)
    params = param_shardings(jax.eval_shape(task.init, key), mesh, rules)
    everywhere = replicated(mesh)
    opt_state = optimizer_shardings(shapes.opt_state, params, mesh)
    shardings = TrainState(everywhere, everywhere, params, opt_state, everywhere)

    def step(state, batch):
        with placing(mesh, rules):
            return train_step(
                state,
                batch,
                task=task,
                optimizer=optimizer,
                accumulation_steps=experiment.accumulation_steps,
                lay=functools.partial(jax.lax.with_sharding_constraint, shardings=params),
            )

    def evaluate(params, batch, key):
        with placing(mesh, rules):
            return task.evaluate(params, batch, example_keys(key, len(batch[0])))

    return Program(
        mesh,
        abstract(shapes, shardings),
        jax.jit(create, out_shardings=shardings),
        jax.jit(step, out_shardings=(shardings, everywhere), donate_argnums=0),
        jax.jit(evaluate, out_shardings=everywhere),
    )
