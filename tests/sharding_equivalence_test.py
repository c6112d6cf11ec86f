"""A run does not depend on how many devices and processes share it."""

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

from w2v2_jax.batches import AudioBatch
from w2v2_jax.masking import example_keys
from w2v2_jax.metrics import merge
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.sharding import make_mesh, put_batch

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Adam divides a gradient by its own size: rounding decides the sign of one that is nothing but rounding.
ADAM = Adam(PolynomialDecay(peak=1e-3, warmup_steps=1), eps=1e-2)


def pretraining():
    return micro.experiment("pretraining", micro.pretraining_task(), micro.Melodies(), num_steps=6, optimizer=ADAM)


def finetuning():
    return micro.experiment("finetuning", micro.ctc_task(), micro.Spelled(), num_steps=6, optimizer=ADAM)


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


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_run_on_8_devices_equals_that_on_1(make, on_8_devices, tmp_path):
    alone = micro.run(make, tmp_path, devices=1)
    assert len(alone.step.sharding.device_set) == 1
    assert_close(alone.params, micro.metric_rows(tmp_path), *on_8_devices(make))


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
        (contrastive_sum, micro.pretraining_task(num_sub_batches=2), micro.pretraining_task(), micro.Melodies()),
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


def run_as_one_of_two(make, workdir, port, place):
    """A process with four of the eight devices."""
    os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=place)
    assert (jax.device_count(), jax.local_device_count()) == (8, 4)
    state = micro.run(make, workdir)
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
    np.savez(workdir / f"params_{place}.npz", **jax.device_get(leaves))


@pytest.mark.slow
@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_run_of_2_processes_equals_that_of_1(make, on_8_devices, tmp_path):
    context = multiprocessing.get_context("spawn")
    port = free_port()
    processes = [context.Process(target=run_as_one_of_two, args=(make, tmp_path, port, place)) for place in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    params, rows = on_8_devices(make)
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for place in range(2):
        assert_close(dict(np.load(tmp_path / f"params_{place}.npz")), micro.metric_rows(tmp_path), expected, rows)
