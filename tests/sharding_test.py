import math

import jax
import jax.numpy as jnp
import micro
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from w2v2_jax.batches import AudioBatch
from w2v2_jax.optimizers import Adam, Freeze, PolynomialDecay
from w2v2_jax.sharding import (
    BATCH_AXIS,
    DATA_PARALLEL,
    abstract,
    make_mesh,
    optimizer_shardings,
    param_shardings,
    put_batch,
    replicated,
)

RULES = (("embed", None), ("mlp", BATCH_AXIS))


def mesh():
    return make_mesh(jax.devices())


def boxed(**arrays):
    """Parameters as a module would make them, from their shapes and the names of their axes."""
    return {
        name: nn.with_logical_partitioning(lambda shape=shape: jnp.zeros(shape), axes)()
        for name, (shape, axes) in arrays.items()
    }


def audio(rows):
    return AudioBatch(np.arange(rows * 4.0, dtype=np.float32).reshape(rows, 4), np.full(rows, 4, np.int32))


def test_parameter_is_cut_where_its_axis_has_a_rule():
    shardings = param_shardings(boxed(kernel=((4, 16), ("embed", "mlp")), bias=((4,), ("embed",))), mesh(), RULES)
    assert shardings["kernel"].shard_shape((4, 16)) == (4, 2)
    assert shardings["bias"].shard_shape((4,)) == (4,)


def test_axis_without_a_rule_is_refused_by_name():
    with pytest.raises(ValueError, match=r"axis 'head' of \['kernel'\] has no rule; add it to the table"):
        param_shardings(boxed(kernel=((4, 16), ("embed", "head"))), mesh(), RULES)


@pytest.mark.parametrize("task", [micro.pretraining_task(), micro.ctc_task()])
def test_every_axis_of_the_models_has_a_rule_and_parameters_are_whole_everywhere(task):
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    shardings = param_shardings(shapes, mesh(), DATA_PARALLEL)
    assert jax.tree.structure(shardings) == jax.tree.structure(nn.unbox(shapes))
    assert all(sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings))


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
    adam = optimizer_shardings(shapes, param_shardings(params, mesh(), RULES), mesh())[0]
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
    shardings = optimizer_shardings(shapes, param_shardings(layers, mesh(), RULES), mesh())
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
    for place, device in enumerate(jax.devices()):
        np.testing.assert_array_equal(rows[device.id], audio(16).waveform[2 * place : 2 * place + 2])


def test_batch_that_does_not_divide_is_refused_with_what_would():
    with pytest.raises(ValueError, match=r"a batch of 12 rows can't be cut over 8 devices.*multiple of 8"):
        put_batch(audio(12), mesh())


def test_abstract_arrays_lie_where_they_are_told():
    made = abstract({"x": jnp.zeros(3)}, {"x": replicated(mesh())})
    assert made["x"].shape == (3,)
    assert made["x"].sharding == replicated(mesh())
