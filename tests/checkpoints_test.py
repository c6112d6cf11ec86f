import contextlib
import logging
import shutil
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from w2v2_jax.checkpoints import (
    CheckpointMismatchError,
    Checkpoints,
    SaveError,
    newest_step,
    read_arrays,
    read_description,
    restore_params,
)
from w2v2_jax.disk import DiskFullError
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
    state, place, step = opened(tmp_path).restore(abstract(state_at(0)))
    assert_same(state, state_at(2))
    assert (place, step) == ({"next": 16}, 2)


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


def test_as_many_of_the_best_are_kept_as_asked_for_and_none_that_was_not_judged(tmp_path):
    checkpoints = opened(tmp_path, keep_last=1, best_metric="wer", keep_best=3)
    for step, wer in {1: None, 2: 0.5, 3: 0.2, 4: None, 5: 0.4, 6: 0.3, 7: 0.6, 8: None}.items():
        checkpoints.save(step, state_at(step), {}, wer and {"wer": wer})
    checkpoints.close()
    assert steps_in(tmp_path / "checkpoints") == ["3", "5", "6", "8"]


def test_without_a_metric_to_judge_by_none_is_the_best(tmp_path):
    checkpoints = opened(tmp_path, keep_last=1)
    for step in (1, 2, 3):
        checkpoints.save(step, state_at(step), {}, {"wer": step})
    checkpoints.close()
    assert steps_in(tmp_path / "checkpoints") == ["3"]


def test_the_best_are_still_known_when_the_run_goes_on(tmp_path):
    for step, wer in enumerate([0.3, 0.1, 0.2, 0.4], start=1):
        checkpoints = opened(tmp_path, keep_last=1, best_metric="wer", keep_best=2)
        checkpoints.save(step, state_at(step), {}, {"wer": wer})
        checkpoints.close()
    assert steps_in(tmp_path / "checkpoints") == ["2", "3", "4"]


def test_those_at_multiples_of_keep_every_stay_for_ever(tmp_path):
    assert steps_in(saved(tmp_path, range(1, 11), keep_last=1, keep_every=4)) == ["10", "4", "8"]


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


def empty_place(checkpoint):
    (checkpoint / "place" / "metadata").write_text("")


@pytest.mark.parametrize("damage", [truncate_arrays, remove_arrays, remove_array_files, empty_place])
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


@pytest.mark.parametrize("name", ["keep_last", "keep_best", "keep_every"])
def test_what_is_kept_is_at_least_one(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is at least 1; got 0"):
        opened(tmp_path, **{name: 0})


def test_readers_of_a_run_use_the_newest_checkpoint_that_can_be_read_and_leave_all_as_it_is(tmp_path, caplog):
    folder = saved(tmp_path, [1, 2])
    shutil.rmtree(folder / "2" / "state" / "d")
    (folder / "2" / "description" / "metadata").unlink()
    assert_same(restore_params(tmp_path, abstract(PARAMS)), state_at(1).params)
    assert read_description(tmp_path)["experiment"] == "tests.tiny"
    np.testing.assert_array_equal(read_arrays(tmp_path)["params/head"], 3.0)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("w2v2_jax")]
    assert ["checkpoint 2 in" in message for message in ours] == [True] * 3
    assert steps_in(folder) == ["1", "2"]
    with pytest.raises(Exception, match="2"):
        restore_params(folder / "2", abstract(PARAMS))


def test_all_arrays_can_be_read_by_their_path(tmp_path):
    saved(tmp_path, [3])
    arrays = read_arrays(tmp_path)
    assert {"step", "key", "params/encoder/kernel", "params/encoder/bias", "params/head"} < arrays.keys()
    np.testing.assert_array_equal(arrays["params/head"], 5.0)
    assert newest_step(tmp_path) == arrays["step"] == 3


def test_a_run_that_saved_nothing_is_at_step_0(tmp_path):
    assert newest_step(tmp_path) == 0


def empty(file):
    file.write_bytes(b"")


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def unlink(file):
    file.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [empty, halve, unlink])
def test_whichever_file_is_damaged_the_run_goes_on_from_a_checkpoint_as_it_was_saved(tmp_path, damage):
    """Some files are not needed: then it is the damaged checkpoint itself."""
    checkpoints = opened(tmp_path / "whole", best_metric="wer")
    for step in (1, 2):
        checkpoints.save(step, state_at(step), {"next": step * 8}, {"wer": 1 / step})
    checkpoints.close()
    whole = tmp_path / "whole" / "checkpoints" / "2"
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert len(files) > 8
    for place, file in enumerate(files):
        run = shutil.copytree(tmp_path / "whole", tmp_path / str(place))
        damage(run / "checkpoints" / "2" / file)
        checkpoints = opened(run, best_metric="wer")
        state, place, step = checkpoints.restore(abstract(state_at(0)))
        assert_same(state, state_at(step))
        assert place == {"next": step * 8}, file
        checkpoints.save(3, state_at(3), {}, {"wer": 0.1})
        checkpoints.close()
        assert newest_step(run) == 3


# Saving in the background.


class Held:
    """What the background thread waits for: done when `released`, or failed with `error`."""

    def __init__(self, error=None):
        self.released, self.error = threading.Event(), error

    def result(self, timeout=None):
        self.released.wait(timeout)
        if self.error:
            raise self.error

    def cancel(self):
        self.released.set()


@pytest.fixture
def hold(monkeypatch):
    """Makes every save wait for the `Held` that it is given."""
    async_save = ocp.JsonCheckpointHandler.async_save

    def hold(held):
        async def save(*args, **settings):
            return [*await async_save(*args, **settings), held]

        monkeypatch.setattr(ocp.JsonCheckpointHandler, "async_save", save)
        return held

    return hold


def test_the_run_goes_on_while_a_checkpoint_is_written_and_the_next_waits_for_it(tmp_path, hold):
    checkpoints, held = opened(tmp_path), hold(Held())
    checkpoints.save(1, state_at(1), {})
    assert newest_step(tmp_path) == 0
    held.released.set()
    checkpoints.save(2, state_at(2), {})
    assert newest_step(tmp_path) >= 1
    checkpoints.close()
    assert newest_step(tmp_path) == 2


@pytest.mark.parametrize("notice", [lambda c: c.save(3, state_at(3), {}), Checkpoints.close, Checkpoints.wait])
def test_an_error_in_the_background_is_told_at_the_next_occasion_with_its_cause(tmp_path, hold, notice):
    saved(tmp_path, [1])
    checkpoints, held = opened(tmp_path), hold(Held(PermissionError("the mount was taken away")))
    held.released.set()
    checkpoints.save(2, state_at(2), {})
    with pytest.raises(SaveError, match=r"checkpoint 2 couldn't be saved in .*the mount was taken away") as caught:
        notice(checkpoints)
    assert isinstance(caught.value.__cause__, PermissionError)
    assert newest_step(tmp_path) == 1


def test_an_error_is_told_once(tmp_path, hold):
    checkpoints, held = opened(tmp_path), hold(Held(PermissionError()))
    held.released.set()
    checkpoints.save(1, state_at(1), {})
    with pytest.raises(SaveError):
        checkpoints.wait()
    checkpoints.close()


def megabyte(step):
    return {"params": {"kernel": np.random.default_rng(step).random(262_144, np.float32)}}


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(small_disk):
    """Two of about a megabyte fit on it beside another file."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_500_000))
    with pytest.raises(DiskFullError) as caught, contextlib.closing(opened(small_disk)) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, megabyte(step), {"next": step})
    message = str(caught.value)
    assert f"disk mounted at {small_disk} is full" in message
    assert "MB free): checkpoint 3, of 1.05 MB, could not be written" in message

    checkpoints = opened(small_disk)
    state, place, step = checkpoints.restore(jax.tree.map(jnp.asarray, megabyte(0)))
    assert (place, step) == ({"next": 2}, 2)
    np.testing.assert_array_equal(state["params"]["kernel"], megabyte(2)["params"]["kernel"])
    filler.unlink()
    checkpoints.save(3, megabyte(3), {})
    checkpoints.close()
    assert newest_step(small_disk) == 3


def test_a_disk_that_fills_in_the_background_is_named(tmp_path, hold):
    checkpoints, held = opened(tmp_path), hold(Held(OSError(28, "No space left on device")))
    held.released.set()
    checkpoints.save(1, state_at(1), {})
    with pytest.raises(DiskFullError, match="MB free"):
        checkpoints.close()
