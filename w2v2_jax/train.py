"""Trains whatever an experiment describes; knows neither model nor loss.

`train(experiment, workdir)` runs to the experiment's last step, starting from the newest checkpoint in `workdir` if
there is one. Killed at any moment and started again it ends with the same parameters and metrics.
"""

import contextlib
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from jaxtyping import Array, Key, PyTree

from w2v2_jax.batches import Batch
from w2v2_jax.checkpoints import Checkpoints, read_description
from w2v2_jax.description import changes, describe
from w2v2_jax.disk import naming_full_disk
from w2v2_jax.experiment import Batches, Dataset, DevSets, Experiment, Metrics, sets_of
from w2v2_jax.metrics import MetricWriter, Row, TrainingLog, merge
from w2v2_jax.preemption import Preempted, Requested, preemption
from w2v2_jax.processes import check_agreement
from w2v2_jax.progress import progress
from w2v2_jax.sharding import make_mesh, put_batch
from w2v2_jax.step import SKIPPED_IN_A_ROW, Program, TrainState, make_program

_log = logging.getLogger(__name__)


class TrainingLostError(FloatingPointError):
    """Many steps in a row had a loss or gradient that isn't finite."""


def train(
    experiment: Experiment, workdir: Path, quiet: bool = False, devices: Sequence[jax.Device] | None = None
) -> TrainState:
    """Runs the experiment to its end, from the newest checkpoint in `workdir` or from `init_from`.

    Batches are cut over `devices`, by default all there are.

    Raises:
        TrainingLostError: where `max_skipped` steps in a row weren't finite; what was learned before is saved.
        Preempted: where it was told to end and has saved.
        SaveError: where a checkpoint couldn't be written.
        DiskFullError: where that, or anything else that a run writes, had no room.
    """
    program = make_program(experiment, make_mesh(devices or jax.devices(), experiment.mesh))
    description = describe(experiment)
    data = {"train_data": experiment.train_data.summary(), "valid_data": experiment.valid_data.summary()}
    check_agreement({"experiment": description, **data})
    batches = experiment.train_data.batches(experiment.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    kept = (experiment.keep_checkpoints, experiment.best_metric, experiment.keep_best, experiment.keep_every)
    with (
        preemption() as requested,
        naming_full_disk(workdir, "what the run writes"),
        contextlib.closing(Checkpoints(workdir, description, *kept)) as checkpoints,
    ):
        row: Row = {}
        if restored := checkpoints.restore(program.state):
            state, place, start = restored
            batches.set_state(place["data"])
            row = place["row"]
            for change in changes(read_description(workdir), description):
                _log.warning("going on from step %d with another setting: %s", start, change)
        else:
            state = program.create(jax.random.key(experiment.seed))
            places = jax.tree.map(lambda x: x.sharding, program.state.params)
            state = state._replace(params=jax.device_put(experiment.init_from(state.params), places))
        if jax.process_index() == 0:
            record = workdir / "experiment.tmp"
            record.write_text(json.dumps(description, indent=1))
            record.replace(workdir / "experiment.json")
        return _run(experiment, program, state, batches, row, checkpoints, requested, workdir, quiet)


def evaluate(program: Program, params: PyTree, batches: Iterator[Batch], key: Key[Array, ""]) -> dict[str, float]:
    """Metrics over all `batches`; the same key gives the same masks."""
    return _values(_measured(program, params, batches, key))


def evaluate_sets(program: Program, params: PyTree, data: Dataset | DevSets, key: Key[Array, ""]) -> dict[str, float]:
    """Metrics over all of `data`, and those of each of several sets as `name/metric`."""
    prefixed = ((f"{name}/" if name else "", each) for name, each in sets_of(data))
    measured = {prefix: _measured(program, params, each.epoch(), key) for prefix, each in prefixed}
    measured = {"": merge(*measured.values())} | measured
    return {f"{prefix}{name}": value for prefix, sums in measured.items() for name, value in _values(sums).items()}


def _measured(program: Program, params: PyTree, batches: Iterator[Batch], key: Key[Array, ""]) -> Metrics:
    parts: list[Metrics] = []
    for i, batch in enumerate(batches):
        parts.append(program.evaluate(params, put_batch(batch, program.mesh), jax.random.fold_in(key, i)))
        jax.block_until_ready(parts[-2:-1])
    return merge(*jax.device_get(parts))


def _values(metrics: Metrics) -> dict[str, float]:
    return {name: float(mean.value()) for name, mean in metrics.items()}


def _run(
    experiment: Experiment,
    program: Program,
    state: TrainState,
    batches: Batches,
    row: Row,
    checkpoints: Checkpoints,
    requested: Requested,
    workdir: Path,
    quiet: bool,
) -> TrainState:
    start, last = int(jax.device_get(state.step)), experiment.num_steps
    eval_key = jax.random.key(experiment.seed)
    skipped = jax.device_get(state.skipped)
    learning_rate = jax.jit(functools.partial(experiment.optimizer.learning_rate, num_steps=last))
    with (
        contextlib.closing(MetricWriter(workdir, resume_step=start)) as writer,
        progress(last, start, quiet or jax.process_index() > 0) as shown,
    ):
        log = TrainingLog(writer, shown, lambda step: jax.device_get(learning_rate(jax.device_put(step))))
        log.set_state(row)
        for step in range(start + 1, last + 1):
            if requested(step - 1):
                log.flush_due()
                checkpoints.save(step - 1, state, {"data": batches.get_state(), "row": log.get_state()})
                raise Preempted(step - 1)
            state, metrics = program.step(state, put_batch(next(batches), program.mesh))
            skipped_before, skipped = skipped, metrics.pop(SKIPPED_IN_A_ROW).total
            # Whatever is due from the step before is fetched while this one runs.
            log.flush_due()
            log.add(step, metrics, due=_due(step, experiment.log_every, last))
            values = None
            is_lost = jax.device_get(skipped_before) >= experiment.max_skipped
            if _due(step, experiment.eval_every, last):
                log.flush_due()
                with log.paused():
                    values = evaluate_sets(program, state.params, experiment.valid_data, eval_key)
                writer.write(step, {f"valid/{name}": value for name, value in values.items()})
            if is_lost or _due(step, experiment.save_every, last):
                log.flush()
                with log.paused():
                    checkpoints.save(step, state, {"data": batches.get_state(), "row": log.get_state()}, values)
            if is_lost:
                raise TrainingLostError(
                    f"the loss or its gradient was not finite in {experiment.max_skipped} steps in a row, up to step "
                    f"{step - 1}; parameters are as before them, saved at step {step}: look at the data of "
                    "these steps, lower the learning rate, or compute in float32"
                )
    return state


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last
