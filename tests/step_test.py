import functools

import jax
import jax.numpy as jnp
import micro
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from w2v2_jax.batches import AudioBatch
from w2v2_jax.metrics import Mean
from w2v2_jax.sharding import BATCH_AXES, RULES, MeshShape, abstract_batch, make_mesh, placing, put_batch
from w2v2_jax.step import create_state, make_program, micro_batches, train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_parts_have_whole_groups_in_their_order():
    """16 rows in groups of two, dealt to two parts."""
    parts = micro_batches({"row": jnp.arange(16)}, 2, rows_together=2)["row"]
    assert parts.tolist() == [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]


def test_one_part_is_the_batch():
    rows = jnp.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(micro_batches(rows, 1, rows_together=float("inf")), rows[None])


@pytest.mark.parametrize(("num_parts", "together"), [(3, 1), (2, 8), (2, float("inf"))])
def test_parts_that_would_cut_a_group_are_refused(num_parts, together):
    message = rf"a batch of 8 rows can't be cut into accumulation_steps={num_parts} equal parts"
    with pytest.raises(ValueError, match=message):
        micro_batches(jnp.arange(8), num_parts, together)


def test_no_row_moves_to_another_device_to_make_parts():
    mesh = make_mesh(jax.devices(), MeshShape(fsdp=2))

    def cut(x):
        with placing(mesh, RULES):
            return micro_batches(x, 4, rows_together=2)

    rows = jax.device_put(jnp.arange(64), NamedSharding(mesh, PartitionSpec(BATCH_AXES)))
    compiled = jax.jit(cut).lower(rows).compile()
    assert not any(word in compiled.as_text() for word in ("all-to-all", "all-gather", "collective-permute"))
    held = {shard.device: set(np.asarray(shard.data).tolist()) for shard in rows.addressable_shards}
    for shard in compiled(rows).addressable_shards:
        assert set(np.asarray(shard.data).ravel().tolist()) == held[shard.device]


class Level:
    """Learns the level of the clips; a clip of level 13 makes the loss infinite, one of 14 the gradient alone."""

    rows_together = 1

    def init(self, key):
        return {"level": jnp.zeros(())}

    def loss(self, params, batch, keys, step):
        levels = batch.waveform[:, 0]
        errors = jnp.square(levels - params["level"]) + jnp.where(levels == 13, jnp.inf, 0)
        # Of value 0 and a slope beyond all numbers.
        nothing = params["level"] - jax.lax.stop_gradient(params["level"])
        errors += jnp.where(levels == 14, nothing * 3e38, 0) * 10
        total = Mean(errors.sum(), jnp.float32(len(levels)))
        return total, {"loss": total}

    def evaluate(self, params, batch, keys):
        raise NotImplementedError


def clips(*levels):
    waveform = np.repeat(np.array(levels, np.float32)[:, None], 400, axis=1)
    return AudioBatch(jnp.asarray(waveform), jnp.full(len(levels), 400))


def step_of(**options):
    optimizer = optax.adam(0.5)
    state = create_state(jax.random.key(0), task=Level(), optimizer=optimizer)
    return state, jax.jit(functools.partial(train_step, task=Level(), optimizer=optimizer, **options))


@pytest.mark.parametrize("bad", [13, 14])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count_of_steps(bad, accumulation_steps):
    state, step = step_of(accumulation_steps=accumulation_steps)
    before, _ = step(state, clips(1, 2, 3, 4))
    after, metrics = step(before, clips(1, 2, bad, 4))
    assert jax.tree.map(float, (after.params, after.opt_state)) == jax.tree.map(
        float, (before.params, before.opt_state)
    )
    assert (after.step, after.skipped) == (2, 1)
    assert metrics["skipped"] == Mean(1, 1)
    assert metrics["loss"] == metrics["grad_norm"] == Mean(0, 0)
    assert metrics["audio_seconds"].value() == pytest.approx(4 * 400 / 16_000)


def test_skipped_steps_are_counted_in_a_row():
    state, step = step_of()
    counts = []
    for level in (13, 13, 1, 13):
        state, _ = step(state, clips(level))
        counts.append(int(state.skipped))
    assert counts == [1, 2, 0, 1]


@pytest.mark.parametrize("make", [micro.pretraining, micro.finetuning])
def test_a_program_for_devices_is_made_without_allocating_anything(make):
    experiment, mesh = make(), make_mesh(jax.devices(), MeshShape(fsdp=2, tensor=2))
    before = len(jax.live_arrays())
    program = make_program(experiment, mesh)
    [shapes] = experiment.train_data.shapes()
    lowered = program.step.lower(program.state, abstract_batch(shapes, mesh))
    assert len(jax.live_arrays()) <= before + 2
    assert "sharding_constraint" in lowered.as_text() or "Sharding" in lowered.as_text()
    kernel = program.state.params["encoder"]["context_network"]["layer"]["feed_forward"]["up"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor")


def test_moments_and_gradients_are_cut_as_their_parameters():
    experiment, mesh = micro.pretraining(), make_mesh(jax.devices(), MeshShape(fsdp=8))
    program = make_program(experiment, mesh)
    state = program.create(jax.random.key(0))
    state, _ = program.step(state, put_batch(next(experiment.train_data.batches(0)), mesh))

    def held(tree):
        return sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(tree))

    params, moments = state.params, [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert held(moments) == 2 * held(params)
    assert held(params) < 0.5 * sum(x.size for x in jax.tree.leaves(params))
