import dataclasses
import functools
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import micro
import numpy as np
import optax
import pytest

from w2v2_jax.batches import AudioBatch
from w2v2_jax.checkpoints import CheckpointMismatchError, restore_params
from w2v2_jax.experiment import DevSet, DevSets
from w2v2_jax.metrics import Mean
from w2v2_jax.optimizers import Adam, Freeze, PolynomialDecay, TriStage
from w2v2_jax.overrides import override
from w2v2_jax.sharding import make_mesh
from w2v2_jax.step import create_state, make_program, train_step
from w2v2_jax.train import TrainingLostError, evaluate, evaluate_sets

pytestmark = pytest.mark.usefixtures("quick_compilation")

EXPERIMENTS = [micro.pretraining, micro.finetuning]


class Stop(Exception):
    """Ends a run from within its data."""


def stop_after_5(num_batches):
    if num_batches == 5:
        raise Stop


def stop_after_6(num_batches):
    if num_batches == 6:
        raise Stop


compilations = []
compilations_before_batch = {}


@jax.monitoring.register_event_duration_secs_listener
def _(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        compilations.append(duration)


def note_compilations(num_batches):
    compilations_before_batch[num_batches] = len(compilations)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Workdir of the run that nothing interrupts."""
    done = {}

    def workdir(make):
        if make not in done:
            done[make] = tmp_path_factory.mktemp(make.__name__)
            micro.run(make, done[make])
        return done[make]

    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("make", EXPERIMENTS)
def test_interrupted_run_ends_as_the_unbroken_one_to_the_last_bit(make, unbroken, tmp_path):
    data = make().train_data
    for watch in (stop_after_5, stop_after_6):
        with pytest.raises(Stop):
            micro.run(make, tmp_path, train_data=micro.Watched(data, watch))
    micro.run(make, tmp_path)
    micro.assert_same_run(tmp_path, unbroken(make))


UNSEEN = 71
"""A seed that no other test has: programs with another one may be compiled already."""


@pytest.mark.parametrize("make", EXPERIMENTS)
def test_nothing_is_compiled_after_the_first_time(make, tmp_path):
    """The step compiles once: neither its own output nor a state with which it has gone on is new to it."""
    data = micro.Watched(make().train_data, note_compilations)
    micro.run(make, tmp_path, train_data=data, seed=UNSEEN, log_every=5, eval_every=5, save_every=5)
    before = compilations_before_batch
    assert before[0] < before[1] == before[2] == before[3] == before[4] < before[5]
    assert before[5] == before[11]


def guard_steps(num_batches):
    """From the second step to the third."""
    jax.config.update("jax_transfer_guard", "disallow" if num_batches in (1, 2) else "allow")


@pytest.mark.parametrize("make", EXPERIMENTS)
def test_steps_move_nothing_between_host_and_device_but_batches_and_metrics(make, tmp_path):
    data = micro.Watched(make().train_data, guard_steps)
    try:
        micro.run(make, tmp_path, train_data=data, num_steps=4, log_every=1, eval_every=9, save_every=9)
    finally:
        guard_steps(0)
    assert [row["step"] for row in micro.metric_rows(tmp_path) if "loss" in row] == [1, 2, 3, 4]


# The loop itself, on a task that needs no model.


@dataclasses.dataclass(frozen=True)
class Level:
    """Learns one number: the mean level of the waveforms. A loss in a file of its own."""

    rows_together: ClassVar[int] = 1

    def init(self, key):
        return {"level": nn.with_logical_partitioning(jax.random.normal, ("embed",))(key, (1,))}

    def loss(self, params, batch, keys, step):
        shapes_traced.append(batch.waveform.shape)
        metrics = self.evaluate(params, batch, keys)
        once = jnp.ones(())
        seen = {"updates_before": Mean(step * once, once), "drawn": Mean(jax.random.uniform(keys[0]), once)}
        return metrics["loss"], metrics | seen

    def evaluate(self, params, batch, keys):
        real = (batch.num_samples > 0).astype(jnp.float32)
        errors = jnp.square(batch.waveform.max(axis=1) - params["level"]) * real
        return {"loss": Mean(errors.sum(), real.sum())}


shapes_traced = []


@dataclasses.dataclass(frozen=True)
class Levels(micro.InMemory):
    """Clips of 10 samples, constant at 1, 2, 3, ..."""

    batch_size: int = 8
    num_clips: int = 8

    def batch(self, clips):
        real = clips < self.num_clips
        levels = np.where(real, clips + 1, 0).astype(np.float32)
        return AudioBatch(np.repeat(levels[:, None], 10, axis=1), (10 * real).astype(np.int32))


@dataclasses.dataclass(frozen=True)
class TwoShapes(Levels):
    """As `Levels`, alternately of 10 and of 20 samples."""

    def batches(self, seed):
        return TwoShapesBatches(self, seed)


class TwoShapesBatches(micro.Endless):
    def __next__(self):
        batch = super().__next__()
        return AudioBatch(np.tile(batch.waveform, 1 + self.step % 2), batch.num_samples)


def levels(**changes):
    return micro.experiment("levels", Level(), Levels(), **{"num_steps": 7, **changes})


def at_100(params):
    return jax.tree.map(lambda x: jnp.full_like(x, 100), params)


def at_1(params):
    return jax.tree.map(jnp.ones_like, params)


def never(params):
    raise AssertionError


def test_rows_are_written_when_due_at_each_save_and_at_the_end(tmp_path):
    """Logged every 3 steps, saved every 2, evaluated every 5, and all of it at step 7."""
    micro.run(levels, tmp_path)
    rows = micro.metric_rows(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [2, 3, 4, 6, 7]
    assert [row["step"] for row in rows if "valid/loss" in row] == [5, 7]


def test_row_has_the_mean_since_the_row_before(tmp_path):
    micro.run(levels, tmp_path)
    rows = [row for row in micro.metric_rows(tmp_path) if "loss" in row]
    assert [row["updates_before"] for row in rows] == [0.5, 2, 3, 4.5, 6]
    assert all(row["audio_seconds"] == pytest.approx(8 * 10 / 16_000) for row in rows)


def test_row_has_the_learning_rate_of_its_last_update(tmp_path):
    micro.run(levels, tmp_path, log_every=1, optimizer=Adam(PolynomialDecay(peak=1.0, warmup_steps=2)))
    rates = [row["learning_rate"] for row in micro.metric_rows(tmp_path) if "loss" in row]
    assert rates == pytest.approx([0, 0.5, 1, 0.8, 0.6, 0.4, 0.2])


def test_every_step_has_a_key_of_its_own_and_every_seed_others(tmp_path):
    for seed in (0, 1):
        micro.run(levels, tmp_path / str(seed), log_every=1, seed=seed)
    drawn = [row["drawn"] for seed in "01" for row in micro.metric_rows(tmp_path / seed) if "loss" in row]
    assert len(set(drawn)) == 14


def test_new_run_starts_from_what_init_from_makes_of_its_random_parameters(tmp_path):
    state = micro.run(levels, tmp_path, init_from=at_100)
    assert state.params["level"][0] == pytest.approx(100, abs=0.5)


def test_finished_run_is_not_run_again(tmp_path):
    first = micro.run(levels, tmp_path)
    again = micro.run(levels, tmp_path, init_from=never, train_data=micro.Watched(Levels(), never))
    assert first.params == again.params
    assert int(again.step) == 7


def test_the_checkpoint_with_the_lowest_validation_metric_is_kept(tmp_path):
    """Training leads away from the level of the one clip that validates."""
    validate = {"valid_data": Levels(num_clips=1), "best_metric": "loss", "eval_every": 2}
    micro.run(levels, tmp_path, init_from=at_1, num_steps=8, save_every=2, keep_checkpoints=1, **validate)
    assert {folder.name for folder in (tmp_path / "checkpoints").iterdir()} == {"2", "8"}


def test_a_run_that_cannot_resume_keeps_its_record(tmp_path):
    micro.run(levels, tmp_path)
    record = (tmp_path / "experiment.json").read_text()
    with pytest.raises(CheckpointMismatchError):
        micro.run(micro.pretraining, tmp_path)
    assert (tmp_path / "experiment.json").read_text() == record


def test_going_on_with_other_settings_is_told(tmp_path, caplog):
    micro.run(levels, tmp_path)
    assert not caplog.messages
    micro.run(levels, tmp_path, num_steps=9, seed=3)
    assert [message.partition(": ")[2] for message in caplog.messages] == ["num_steps: 7 -> 9", "seed: 0 -> 3"]
    assert "step 7" in caplog.messages[0]


@pytest.mark.parametrize("batch_size", [8, 16])
def test_evaluation_counts_every_clip_once_and_no_filler(batch_size):
    """11 clips at levels 1 to 11 against a level of 0: batches of 8 and 3 clips, or one of 11."""
    data = Levels(batch_size=batch_size, num_clips=11)
    program = make_program(levels(), make_mesh(jax.devices()))
    metrics = evaluate(program, {"level": jnp.zeros(1)}, data.epoch(), jax.random.key(0))
    assert metrics == {"loss": pytest.approx(sum(n**2 for n in range(1, 12)) / 11)}


LOW_AND_HIGH = DevSets((DevSet("low", Levels(num_clips=2)), DevSet("high", Levels(batch_size=16, num_clips=11))))


def test_each_of_several_sets_is_measured_and_all_of_them_together():
    """Levels of 1 and 2, and of 1 to 11, against a level of 0."""
    program = make_program(levels(), make_mesh(jax.devices()))
    metrics = evaluate_sets(program, {"level": jnp.zeros(1)}, LOW_AND_HIGH, jax.random.key(0))
    assert metrics == pytest.approx({"loss": 511 / 13, "low/loss": 5 / 2, "high/loss": 506 / 11})


def test_a_run_writes_what_it_measures_of_each_set_and_goes_on_exactly(tmp_path):
    micro.run(levels, tmp_path / "unbroken", valid_data=LOW_AND_HIGH)
    [row, _] = [row for row in micro.metric_rows(tmp_path / "unbroken") if "valid/loss" in row]
    assert row.keys() == {"step", "valid/loss", "valid/low/loss", "valid/high/loss"}
    with pytest.raises(Stop):
        watched = micro.Watched(Levels(), stop_after_5)
        micro.run(levels, tmp_path / "broken", valid_data=LOW_AND_HIGH, train_data=watched)
    micro.run(levels, tmp_path / "broken", valid_data=LOW_AND_HIGH)
    micro.assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_the_best_checkpoint_may_be_that_of_one_set(tmp_path):
    """Training leads away from the low level and towards the others."""
    kept = {"init_from": at_1, "num_steps": 8, "eval_every": 2, "save_every": 2, "keep_checkpoints": 1}
    for name, expected in (("low/loss", {"2", "8"}), ("high/loss", {"8"}), ("loss", {"8"})):
        workdir = tmp_path / name
        sets = DevSets((DevSet("low", Levels(num_clips=1)), DevSet("high", Levels(num_clips=8))))
        micro.run(levels, workdir, valid_data=sets, best_metric=name, **kept)
        assert {folder.name for folder in (workdir / "checkpoints").iterdir()} == expected


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a", ""), ("a/b",)])
def test_sets_without_names_of_their_own_are_refused(names):
    with pytest.raises(ValueError, match="each a name of its own without '/'"):
        DevSets(tuple(DevSet(name, Levels()) for name in names))


def test_gradient_is_of_the_mean_over_clips_and_fillers_count_nowhere():
    """d/dx of the mean of (n - x)^2 at x = 0, for n = 1 to 5, is -6."""
    task, optimizer = Level(), optax.sgd(0.5)
    state = create_state(jax.random.key(0), task=task, optimizer=optimizer)
    state = state._replace(params={"level": jnp.zeros(1)})
    batch = jax.tree.map(jnp.asarray, Levels(num_clips=5).batch(np.arange(8)))
    state, metrics = train_step(state, batch, task=task, optimizer=optimizer)
    assert state.params["level"] == pytest.approx(3)
    assert metrics["grad_norm"].value() == pytest.approx(6)


def test_as_many_programs_are_compiled_as_there_are_shapes(tmp_path):
    del shapes_traced[:]
    data = micro.Watched(TwoShapes(), note_compilations)
    micro.run(levels, tmp_path, train_data=data, seed=UNSEEN, log_every=2, eval_every=2, save_every=2)
    assert sorted(shapes_traced) == [(8, 10), (8, 20)]
    assert compilations_before_batch[2] == compilations_before_batch[6]


@pytest.mark.parametrize("name", ["num_steps", "log_every", "eval_every", "save_every", "keep_best", "max_skipped"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0: give at least 1"):
        levels(**{name: 0})


# Losses and gradients that must not be.


@dataclasses.dataclass(frozen=True)
class Infinite(Levels):
    """As `Levels`, but the batches from the third to the sixth are of no finite level."""

    def batches(self, seed):
        return InfiniteBatches(self, seed)


class InfiniteBatches(micro.Endless):
    def __next__(self):
        batch = super().__next__()
        return batch._replace(samples=batch.samples * (np.inf if 3 <= self.step <= 6 else 1))


def test_steps_that_are_not_finite_are_skipped_counted_and_outlived(tmp_path):
    state = micro.run(levels, tmp_path, train_data=Infinite(), log_every=1, max_skipped=5)
    rows = [row for row in micro.metric_rows(tmp_path) if "loss" in row]
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1, 1, 1, 0]
    assert [math.isfinite(row["loss"]) for row in rows] == [not row["skipped"] for row in rows]
    assert int(state.step) == 7
    assert np.isfinite(state.params["level"]).all()


def test_a_run_with_too_many_such_steps_in_a_row_ends_with_an_error_and_its_last_good_state(tmp_path):
    """Steps 3 to 5 are known to be lost when step 6 is under way."""
    with pytest.raises(TrainingLostError, match=r"not finite in 3 steps in a row, up to step 5.*saved at step 6"):
        micro.run(levels, tmp_path, train_data=Infinite(), max_skipped=3)
    good = micro.run(levels, tmp_path / "good", num_steps=2, optimizer=PLATEAU)
    with pytest.raises(TrainingLostError):
        micro.run(levels, tmp_path / "lost", train_data=Infinite(), max_skipped=3, optimizer=PLATEAU)
    assert micro.newest(tmp_path / "lost").name == "6"
    saved = restore_params(tmp_path / "lost", good.params)
    assert saved == good.params


PLATEAU = Adam(TriStage(peak=0.1, phase_ratio=(0.0, 1.0, 0.0)))
"""A rate that doesn't depend on the length of a run."""


def test_run_with_frozen_parameters_leaves_them_as_they_are(tmp_path):
    optimizer = Adam(PolynomialDecay(1e-2, 0), freezes=(Freeze("level", 1000),))
    state = micro.run(levels, tmp_path, optimizer=optimizer, init_from=at_100)
    assert state.params["level"] == 100


def test_frozen_parameters_do_not_change_in_the_least_until_they_thaw():
    freezes = (Freeze("encoder.feature_encoder", math.inf), Freeze("encoder", 2))
    optimizer = Adam(PolynomialDecay(1e-2, 0), freezes=freezes).transformation(10)
    task, batch = micro.ctc_task(), next(micro.Spelled().batches(0))
    create, step = (
        functools.partial(function, task=task, optimizer=optimizer) for function in (create_state, train_step)
    )
    state, step = jax.jit(create)(jax.random.key(0)), jax.jit(step)

    def changed(before, after):
        pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        return {jax.tree_util.keystr(path, simple=True, separator=".") for (path, a), b in pairs if (a != b).any()}

    frozen = state
    for _ in range(2):
        state, _ = step(state, batch)
    assert changed(frozen.params, state.params) == {"head.kernel", "head.bias"}
    thawed, _ = step(state, batch)
    now_changed = changed(state.params, thawed.params)
    assert not [name for name in now_changed if name.startswith("encoder.feature_encoder")]
    assert {"head.bias", "encoder.mask_embedding", "encoder.projection.kernel"} <= now_changed


def test_gradient_scale_of_0_leaves_the_feature_encoder_exactly_without_gradient():
    task = override(micro.ctc_task(), {"model.encoder.feature_gradient_scale": 0.0})
    batch, key = jax.tree.map(jnp.asarray, next(micro.Spelled().batches(0))), jax.random.key(0)
    params = nn.unbox(jax.jit(task.init)(key))
    keys = jax.random.split(key, 8)
    gradients = jax.jit(jax.grad(lambda params: task.loss(params, batch, keys, jnp.int32(0))[0].total))(params)
    stopped = gradients["encoder"].pop("feature_encoder")
    assert not any(gradient.any() for gradient in jax.tree.leaves(stopped))
    assert gradients["encoder"]["projection"]["kernel"].all()
