import dataclasses
import math

import jax
import jax.numpy as jnp
import micro
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from w2v2_jax import presets
from w2v2_jax.batches import AudioBatch
from w2v2_jax.optimizers import Adam, Freeze, PolynomialDecay
from w2v2_jax.sharding import (
    BATCH_AXES,
    RULES,
    MeshShape,
    abstract,
    abstract_batch,
    make_mesh,
    optimizer_shardings,
    param_shardings,
    place,
    placing,
    put_batch,
    replicated,
)
from w2v2_jax.tasks import Pretraining


def mesh(fsdp=1, tensor=1):
    return make_mesh(jax.devices(), MeshShape(fsdp, tensor))


def boxed(**arrays):
    """Parameters as a module would make them, from their shapes and the names of their axes."""
    return {
        name: nn.with_logical_partitioning(lambda shape=shape: jnp.zeros(shape), axes)()
        for name, (shape, axes) in arrays.items()
    }


def audio(rows):
    return AudioBatch(np.arange(rows * 4.0, dtype=np.float32).reshape(rows, 4), np.full(rows, 4, np.int32))


def test_the_shape_of_the_mesh_says_how_parameters_are_cut():
    """Of a feed-forward kernel fsdp cuts the side of the stream, tensor that of the units; data copies it."""
    params = boxed(kernel=((4, 16), ("embed", "mlp")), bias=((16,), ("mlp",)), norm=((4,), ("embed",)))

    def cut(**shape):
        shardings = param_shardings(params, mesh(**shape))
        return [shardings[name].shard_shape(nn.unbox(params)[name].shape) for name in ("kernel", "bias", "norm")]

    assert cut() == [(4, 16), (16,), (4,)]
    assert cut(fsdp=4) == [(1, 16), (16,), (4,)]
    assert cut(tensor=8) == [(4, 2), (2,), (4,)]
    assert cut(fsdp=2, tensor=4) == [(2, 4), (4,), (4,)]


def test_vectors_of_layers_under_a_scan_are_as_small_as_others():
    shardings = param_shardings(boxed(norm=((3, 8), ("layer", "embed"))), mesh(fsdp=8))
    assert shardings["norm"].is_fully_replicated


def test_axis_without_a_rule_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"axis 'heads' of kernel \('embed', 'heads'\) has no rule; add it to the table"
    ):
        param_shardings(boxed(kernel=((4, 16), ("embed", "heads"))), mesh())


def test_two_axes_of_a_parameter_on_one_axis_of_the_mesh_are_refused():
    with pytest.raises(
        ValueError, match=r"two axes of kernel \('embed', 'channel'\) fall on the same axis of the mesh"
    ):
        param_shardings(boxed(kernel=((8, 8), ("embed", "channel"))), mesh(fsdp=2))


def test_axis_that_the_mesh_does_not_divide_is_refused_with_what_would():
    with pytest.raises(
        ValueError, match=r"kernel .* has 12 along 'tensor', which 8 devices can't share.*divisor of 12"
    ):
        param_shardings(boxed(kernel=((4, 12), ("embed", "head"))), mesh(tensor=8))


@pytest.mark.parametrize("shape", [MeshShape(3), MeshShape(4, 4), MeshShape(0), MeshShape(-1, -1)])
def test_groups_that_do_not_make_up_the_devices_are_refused(shape):
    with pytest.raises(ValueError, match=r"8 devices can't be groups of fsdp=.*whose product divides 8"):
        make_mesh(jax.devices(), shape)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device of some process."""

    process_index: int
    id: int


def test_devices_of_a_process_stand_together_whatever_their_order():
    chips = [Chip(number % 2, number) for number in range(8)]
    found = make_mesh(chips, MeshShape(fsdp=4)).devices
    assert [[chip.process_index for chip in row] for row in found[:, :, 0]] == [[0] * 4, [1] * 4]


def test_rows_of_a_batch_are_not_spread_over_processes():
    chips = [Chip(number // 2, number) for number in range(8)]
    assert make_mesh(chips, MeshShape(fsdp=8)).shape == {"data": 1, "fsdp": 8, "tensor": 1}
    with pytest.raises(ValueError, match="tensor=4 would spread the rows of one batch over processes with 2 devices"):
        make_mesh(chips, MeshShape(tensor=4))


PRESETS = [presets.base, presets.large, presets.large_lv60, presets.conformer_relative, presets.xls_r_1b]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [MeshShape(), MeshShape(fsdp=8), MeshShape(tensor=4), MeshShape(2, 2)])
def test_published_networks_fit_every_kind_of_mesh(preset, shape):
    shapes = jax.eval_shape(Pretraining(preset()).init, jax.random.key(0))
    shardings = param_shardings(shapes, make_mesh(jax.devices(), shape))
    assert jax.tree.structure(shardings) == jax.tree.structure(nn.unbox(shapes))
    held = sum(
        math.prod(sharding.shard_shape(array.shape))
        for sharding, array in zip(jax.tree.leaves(shardings), jax.tree.leaves(nn.unbox(shapes)), strict=True)
    )
    total = sum(math.prod(array.shape) for array in jax.tree.leaves(nn.unbox(shapes)))
    # What isn't cut: feature encoder and positions by tensor, quantizer and vectors by either.
    assert total / math.prod(shape) <= held <= total / math.prod(shape) + 0.16 * total * (math.prod(shape) > 1)


def test_what_is_computed_is_laid_on_the_mesh_by_the_same_table():
    def f(x):
        with placing(mesh(fsdp=2, tensor=2), RULES):
            return place(x, "batch", "frame", "mlp")

    assert jax.jit(f)(jnp.zeros((8, 3, 4))).sharding.spec == PartitionSpec(BATCH_AXES, None, "tensor")
    x = jnp.zeros((8, 3, 4))
    assert place(x, "batch", "frame", "no such name") is x


def test_every_parameter_names_all_its_axes():
    for task in (micro.pretraining_task(), micro.ctc_task()):
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        specs = jax.tree.leaves(nn.get_partition_spec(shapes), is_leaf=lambda x: isinstance(x, PartitionSpec))
        for spec, shape in zip(specs, jax.tree.leaves(nn.unbox(shapes)), strict=True):
            assert len(spec) == shape.ndim
            assert None not in spec


def test_moments_live_where_their_parameters_do_and_counters_everywhere():
    params = boxed(kernel=((4, 16), ("embed", "mlp")), bias=((4,), ("embed",)))
    shapes = jax.eval_shape(optax.adam(1e-3).init, nn.unbox(params))
    adam = optimizer_shardings(shapes, param_shardings(params, mesh(tensor=8)), mesh())[0]
    assert adam.mu["kernel"].shard_shape((4, 16)) == adam.nu["kernel"].shard_shape((4, 16)) == (4, 2)
    assert adam.mu["bias"].is_fully_replicated
    assert adam.count.is_fully_replicated


def test_moments_of_parameters_that_thaw_live_where_these_do():
    layers = {
        name: boxed(kernel=((4, 16), ("embed", "mlp")), bias=((4,), ("embed",))) for name in ("first", "middle", "last")
    }
    freezes = (Freeze("first", math.inf), Freeze("middle", 2))
    optimizer = Adam(PolynomialDecay(1e-2, 0), freezes=freezes).transformation(10)
    shapes = jax.eval_shape(optimizer.init, nn.unbox(layers))
    shardings = optimizer_shardings(shapes, param_shardings(layers, mesh(tensor=8)), mesh())
    cut = [
        shape.shape
        for shape, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
        if not sharding.is_fully_replicated
    ]
    # Two moments each of the kernel in the middle and of the last one.
    assert cut == [(4, 16)] * 4


def test_batch_is_cut_over_the_devices_in_order():
    batch = put_batch(audio(16), mesh())
    assert type(batch) is AudioBatch
    rows = {shard.device.id: np.asarray(shard.data) for shard in batch.waveform.addressable_shards}
    for number, device in enumerate(jax.devices()):
        np.testing.assert_array_equal(rows[device.id], audio(16).waveform[2 * number : 2 * number + 2])


def test_devices_that_share_layers_have_the_same_rows():
    batch = put_batch(audio(8), mesh(fsdp=2, tensor=2))
    rows = {shard.device.id: np.asarray(shard.data) for shard in batch.waveform.addressable_shards}
    for number, device in enumerate(jax.devices()):
        np.testing.assert_array_equal(rows[device.id], audio(8).waveform[2 * (number // 2) :][:2])


def test_an_abstract_batch_is_laid_as_a_real_one():
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), audio(8))
    real, made = put_batch(audio(8), mesh(fsdp=2)), abstract_batch(shapes, mesh(fsdp=2))
    assert [x.sharding for x in jax.tree.leaves(made)] == [x.sharding for x in jax.tree.leaves(real)]
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(made)] == [(x.shape, x.dtype) for x in jax.tree.leaves(real)]


def test_batch_that_does_not_divide_is_refused_with_what_would():
    with pytest.raises(ValueError, match=r"a batch of 12 rows can't be cut over 8 devices.*multiple of 8"):
        put_batch(audio(12), mesh())


def test_abstract_arrays_lie_where_they_are_told():
    made = abstract({"x": jnp.zeros(3)}, {"x": replicated(mesh())})
    assert made["x"].shape == (3,)
    assert made["x"].sharding == replicated(mesh())
