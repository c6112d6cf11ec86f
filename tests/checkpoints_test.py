import logging
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from w2v2_jax.checkpoints import CheckpointMismatchError, Checkpoints, read_description, restore_params
from w2v2_jax.optimizers import adam, freeze


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    key: jax.Array


PARAMS = {"encoder": {"kernel": jnp.arange(32.0).reshape(16, 2), "bias": jnp.ones(3)}, "head": jnp.full(4, 2.0)}


def state_at(step, params=PARAMS, key=7):
    optimizer = freeze(adam(lambda n: 0.1), {"encoder.bias": 10})
    params = jax.tree.map(lambda p: p + step, params)
    return State(jnp.int32(step), params, optimizer.init(params), jax.random.key(key))


def abstract(tree, sharding=None):
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def opened(tmp_path, **settings):
    return Checkpoints(tmp_path, {"experiment": "tests.tiny", "overrides": {"a.b": 1}}, **settings)


def saved(tmp_path, steps, **settings):
    """The checkpoints of a run that saved at `steps` and ended."""
    checkpoints = opened(tmp_path, **settings)
    for step in steps:
        checkpoints.save(step, state_at(step), {"next": step * 8})
    checkpoints.close()
    return tmp_path / "checkpoints"


def steps_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_without_checkpoints_restores_nothing(tmp_path):
    assert opened(tmp_path).restore(abstract(state_at(0))) is None


def test_the_newest_state_comes_back_whole_with_its_data_position_and_step(tmp_path):
    saved(tmp_path, [1, 2])
    state, data_state, step = opened(tmp_path).restore(abstract(state_at(0)))
    assert_same(state, state_at(2))
    assert (data_state, step) == ({"next": 16}, 2)


def test_arrays_will_do_as_the_abstract_state(tmp_path):
    saved(tmp_path, [1])
    state, *_ = opened(tmp_path).restore(state_at(0, key=0))
    assert_same(state, state_at(1))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_prng_keys_keep_their_kind(tmp_path, kind):
    checkpoints = opened(tmp_path)
    state = {
        "params": jnp.zeros(1),
        "key": jax.random.key(3, impl=kind),
        "keys": jax.random.split(jax.random.key(4), 2),
    }
    checkpoints.save(1, state, {})
    back, *_ = checkpoints.restore(abstract(state))
    assert_same(back, state)


def test_a_state_spread_over_eight_devices_comes_back_on_one_and_the_reverse(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    one = SingleDeviceSharding(jax.devices()[0])
    for there, here in [(spread, one), (one, spread)]:
        state = {"params": {"kernel": jax.device_put(jnp.arange(16.0), there)}}
        checkpoints = opened(tmp_path / str(there.num_devices))
        checkpoints.save(1, state, {})
        back, *_ = checkpoints.restore(abstract(state, here))
        assert back["params"]["kernel"].sharding == here
        np.testing.assert_array_equal(back["params"]["kernel"], np.arange(16.0))


def test_the_state_may_be_overwritten_as_soon_as_save_returns(tmp_path):
    checkpoints = opened(tmp_path)
    state = {"params": jnp.ones((512, 512))}
    checkpoints.save(1, state, {})
    state["params"].delete()
    back, *_ = checkpoints.restore({"params": jax.ShapeDtypeStruct((512, 512), jnp.float32)})
    np.testing.assert_array_equal(back["params"], 1)


def test_the_newest_checkpoints_are_kept_and_the_best(tmp_path):
    checkpoints = opened(tmp_path, keep_last=2, best_metric="wer")
    for step, wer in enumerate([0.5, 0.2, np.nan, 0.4, 0.3], start=1):
        checkpoints.save(step, state_at(step), {}, {"wer": wer})
    checkpoints.save(6, state_at(6), {})
    checkpoints.close()
    assert steps_in(tmp_path / "checkpoints") == ["2", "5", "6"]


def test_metrics_without_the_one_to_judge_by_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no 'wer' to judge a checkpoint by"):
        opened(tmp_path, best_metric="wer").save(1, state_at(1), {}, {"loss": 1.0})


def test_a_step_is_saved_once(tmp_path):
    saved(tmp_path, [1, 1])
    assert opened(tmp_path).restore(abstract(state_at(0)))[2] == 1


def truncate_arrays(checkpoint):
    for path in checkpoint.glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[:10])


def remove_arrays(checkpoint):
    shutil.rmtree(checkpoint / "state")


def remove_array_files(checkpoint):
    shutil.rmtree(checkpoint / "state" / "ocdbt.process_0")
    shutil.rmtree(checkpoint / "state" / "d")


def empty_data_position(checkpoint):
    (checkpoint / "data" / "metadata").write_text("")


@pytest.mark.parametrize("damage", [truncate_arrays, remove_arrays, remove_array_files, empty_data_position])
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_the_run_goes_on_from_the_one_before(
    tmp_path, damage, caplog
):
    folder = saved(tmp_path, [1, 2])
    damage(folder / "2")
    checkpoints = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        state, _, step = checkpoints.restore(abstract(state_at(0)))
    assert step == 1
    assert_same(state, state_at(1))
    assert "checkpoint 2 in" in caplog.text
    checkpoints.save(2, state_at(2), {})
    assert checkpoints.restore(abstract(state_at(0)))[2] == 2


def test_a_checkpoint_that_was_being_written_when_the_run_was_killed_counts_for_nothing(tmp_path):
    folder = saved(tmp_path, [1, 2])
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp")
    assert opened(tmp_path).restore(abstract(state_at(0)))[2] == 1
    assert steps_in(folder) == ["1"]


def test_checkpoints_none_of_which_can_be_read_stop_the_run_and_stay(tmp_path):
    folder = saved(tmp_path, [1, 2])
    for step in ("1", "2"):
        truncate_arrays(folder / step)
    with pytest.raises(OSError, match=r"none of the checkpoints \[1, 2\]"):
        opened(tmp_path).restore(abstract(state_at(0)))
    assert steps_in(folder) == ["1", "2"]


def with_kernel(shape):
    return state_at(0, {**PARAMS, "encoder": {"kernel": jnp.zeros(shape), "bias": jnp.ones(3)}})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (with_kernel((16, 3)), r"params/encoder/kernel has shape \(16, 3\) here and \(16, 2\) there"),
        (state_at(0, {**PARAMS, "tail": jnp.ones(2)}), r"no params/tail \(2,\)"),
        (state_at(0, {"encoder": PARAMS["encoder"]}), r"it has .*head \(4,\), which isn't here"),
    ],
)
def test_a_state_of_another_model_is_an_error_that_names_what_differs(tmp_path, other, message):
    saved(tmp_path, [1])
    with pytest.raises(CheckpointMismatchError, match=message):
        opened(tmp_path).restore(abstract(other))


@pytest.mark.parametrize("of_the_run", [True, False])
def test_a_checkpoint_describes_itself(tmp_path, of_the_run):
    folder = saved(tmp_path, [1, 2])
    description = read_description(tmp_path if of_the_run else folder / "1")
    assert description == {"experiment": "tests.tiny", "overrides": {"a.b": 1}}


def test_part_of_the_parameters_can_be_restored(tmp_path):
    folder = saved(tmp_path, [1, 2])
    wanted = {"encoder": abstract(PARAMS["encoder"])}
    assert_same(restore_params(folder / "1", wanted), {"encoder": state_at(1).params["encoder"]})
    assert_same(restore_params(tmp_path, wanted), {"encoder": state_at(2).params["encoder"]})


def test_parameters_of_another_model_are_an_error_that_names_the_nearest(tmp_path):
    saved(tmp_path, [1])
    with pytest.raises(
        CheckpointMismatchError, match=r"no params/encodr/bias \(3,\); nearest: \['params/encoder/bias'\]"
    ):
        restore_params(tmp_path, {"encodr": abstract({"bias": jnp.ones(3)})})


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        restore_params(tmp_path, {})
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        read_description(tmp_path / "nowhere")


def test_a_run_keeps_at_least_one_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="keep_last is at least 1"):
        opened(tmp_path, keep_last=0)
