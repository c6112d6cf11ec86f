"""A run does not depend on how many devices and processes share it."""

import contextlib
import dataclasses
import multiprocessing
import os
import socket
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest

from w2v2_jax.batches import AudioBatch, example_keys
from w2v2_jax.metrics import merge
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.processes import ADDRESS, COUNT, INDEX, meet
from w2v2_jax.sharding import MeshShape, make_mesh, put_batch, replicated

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Adam divides a gradient by its own size: rounding decides the sign of one that is nothing but rounding.
ADAM = Adam(PolynomialDecay(peak=1e-3, warmup_steps=1), eps=1e-2)


STEPS = 20


def pretraining(**changes):
    """With distractors, noise and masks, and codebook statistics of two clips each; without dropout."""
    task, data = micro.pretraining_task(sub_batch_size=2), micro.Melodies(batch_size=32, num_clips=32)
    return dataclasses.replace(experiment("pretraining", task, data), **changes)


def finetuning(**changes):
    return dataclasses.replace(experiment("finetuning", micro.ctc_task(), micro.Spelled(batch_size=32)), **changes)


def experiment(name, task, data):
    done = {"num_steps": STEPS, "log_every": 1, "eval_every": 10, "save_every": 10}
    return dataclasses.replace(micro.experiment(name, task, data), optimizer=ADAM, valid_data=data, **done)


def assert_close(params, rows, other_params, other_rows):
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(other_params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    assert len(rows) == len(other_rows)
    for ours, theirs in zip(rows, other_rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def on_8_devices(tmp_path_factory):
    """Parameters and metrics of a run on the eight devices."""
    done = {}

    def run(make):
        if make not in done:
            workdir = tmp_path_factory.mktemp(make.__name__)
            state = micro.run(make, workdir)
            done[make] = jax.device_get(state.params), micro.metric_rows(workdir)
        return done[make]

    return run


TOPOLOGIES = {
    "1 device": (1, {}),
    "2 devices": (2, {}),
    "fully sharded": (8, {"mesh": MeshShape(fsdp=8)}),
    "layers shared": (2, {"mesh": MeshShape(tensor=2)}),
    "4 parts on 1 device": (1, {"accumulation_steps": 4}),
    "4 parts, all ways of cutting": (8, {"accumulation_steps": 4, "mesh": MeshShape(fsdp=2, tensor=2)}),
}
FOR_FINETUNING = ("4 parts, all ways of cutting",)


@pytest.mark.parametrize(
    ("make", "topology"),
    [*((pretraining, name) for name in TOPOLOGIES), *((finetuning, name) for name in FOR_FINETUNING)],
)
def test_20_steps_are_those_of_8_devices(make, topology, on_8_devices, tmp_path):
    devices, changes = TOPOLOGIES[topology]
    state = micro.run(make, tmp_path, devices=devices, **changes)
    assert len(state.step.sharding.device_set) == devices
    assert_close(state.params, micro.metric_rows(tmp_path), *on_8_devices(make))


def test_masks_distractors_and_noise_do_not_depend_on_the_number_of_devices_in_any_bit():
    task, batch = micro.pretraining_task(), next(micro.Melodies(batch_size=16).batches(0))
    sample = jax.jit(lambda key, batch: task.sample(example_keys(key, 16), batch, noise_scale=1.0))
    draws, on_one = (
        sample(jax.random.key(3), put_batch(batch, make_mesh(devices)))
        for devices in (jax.devices(), jax.devices()[:1])
    )
    assert len(draws.masked.sharding.device_set) == 8
    for name, drawn, expected in zip(draws._fields, draws, on_one, strict=True):
        np.testing.assert_array_equal(drawn, expected, err_msg=name)


def contrastive_sum(params, batch, draws, task):
    objective, metrics = task.objective(task.apply(params, batch, draws, 2.0), draws)
    return objective.total, {"objective": objective, **metrics}


def ctc_sum(params, batch, draws, task):
    objective, metrics = task.objective(task.logits(params, batch), batch)
    return objective.total, {"objective": objective, **metrics}


@pytest.mark.parametrize(
    ("total", "whole_task", "half_task", "data"),
    [
        (contrastive_sum, micro.pretraining_task(sub_batch_size=4), micro.pretraining_task(), micro.Melodies()),
        (ctc_sum, micro.ctc_task(), micro.ctc_task(), micro.Spelled()),
    ],
    ids=["pretraining", "finetuning"],
)
def test_sums_weights_and_gradients_of_two_halves_add_up_to_those_of_the_batch(total, whole_task, half_task, data):
    batch = jax.tree.map(jnp.asarray, next(data.batches(0)))
    params = nn.unbox(jax.jit(half_task.init)(jax.random.key(1)))
    sample = micro.pretraining_task().sample
    draws = jax.jit(lambda keys, batch: sample(keys, batch, 1.0))(
        example_keys(jax.random.key(0), 8), AudioBatch(batch.waveform, batch.num_samples)
    )
    of_half = jax.jit(jax.grad(partial(total, task=half_task), has_aux=True))
    halves = [
        of_half(params, *jax.tree.map(lambda x, part=part: x[part], (batch, draws))) for part in (np.s_[:4], np.s_[4:])
    ]
    whole = jax.jit(jax.grad(partial(total, task=whole_task), has_aux=True))(params, batch, draws)
    for (path, expected), found in zip(
        jax.tree_util.tree_leaves_with_path(merge(*halves)), jax.tree.leaves(whole), strict=True
    ):
        scale = max(1.0, float(abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale, err_msg=jax.tree_util.keystr(path))


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


class Stop(Exception):
    """Ends a process before its run is over."""


@dataclasses.dataclass(frozen=True)
class StopAt:
    """Stops where one more batch than `last` is asked for."""

    last: int

    def __call__(self, num_batches):
        if num_batches == self.last:
            raise Stop


def run_as_one_of(count, place, port, devices, make, workdir, last, changes):
    """A process with its share of the devices, which is stopped after `last` steps."""
    flag = f"device_count={devices // count}"
    os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("device_count=8", flag)
    os.environ |= {ADDRESS: f"localhost:{port}", COUNT: str(count), INDEX: str(place)}
    if count > 1:
        meet()
    assert (jax.device_count(), jax.local_device_count()) == (devices, devices // count)
    data = micro.Watched(make().train_data, StopAt(last))
    with contextlib.suppress(Stop):
        state = micro.run(make, workdir, train_data=data, **changes)
        whole = jax.device_put(state.params, replicated(state.step.sharding.mesh))
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(whole)}
        np.savez(workdir / f"params_{place}.npz", **jax.device_get(leaves))


def run_on(count, devices, make, workdir, last=STEPS + 1, **changes):
    """The run shared by `count` processes that meet as on a cluster."""
    context = multiprocessing.get_context("spawn")
    shared = (free_port(), devices, make, workdir, last, changes)
    processes = [context.Process(target=run_as_one_of, args=(count, place, *shared)) for place in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def assert_same_as(run, workdir, place):
    params, rows = run
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert_close(dict(np.load(workdir / f"params_{place}.npz")), micro.metric_rows(workdir), expected, rows)


@pytest.mark.slow
def test_run_of_2_processes_equals_that_of_1(on_8_devices, tmp_path):
    run_on(2, 4, finetuning, tmp_path, mesh=MeshShape(fsdp=2, tensor=2))
    for place in range(2):
        assert_same_as(on_8_devices(finetuning), tmp_path, place)


@pytest.mark.slow
def test_run_begun_by_4_processes_and_ended_by_2_and_by_1_on_fewer_devices_equals_that_of_1(on_8_devices, tmp_path):
    """With parameters in pieces that lie with several processes, whole, and in other pieces."""
    run_on(4, 4, pretraining, tmp_path, last=7, save_every=6, mesh=MeshShape(fsdp=4))
    run_on(2, 2, pretraining, tmp_path, last=13, save_every=6, accumulation_steps=2)
    run_on(1, 2, pretraining, tmp_path, save_every=6, mesh=MeshShape(fsdp=2))
    assert_same_as(on_8_devices(pretraining), tmp_path, 0)
