"""Our side of train_step.py: the train step that `w2v2 train` runs, as a worker."""

import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from train_cases import Case, clips_of, labels_of, task_of
from worker import job_on_standard_output, peak_resident, serve

from experiments.pretrain import base_960h
from w2v2_jax.batches import AudioBatch, LabeledBatch, example_keys
from w2v2_jax.overrides import override
from w2v2_jax.planning.flops import count_flops
from w2v2_jax.sharding import make_mesh, put_batch
from w2v2_jax.step import make_program


def main() -> None:
    """Compiles the step, takes some to warm up, and serves."""
    job = job_on_standard_output()
    case = Case(**job["case"])
    device = jax.devices()[0]
    task = task_of(case)
    experiment = override(base_960h.experiment(), {"task": task})
    mesh = make_mesh([device])
    program = make_program(experiment, mesh)
    batch = batch_of(case)
    state = program.create(jax.random.key(0))
    step = program.step.lower(state, put_batch(batch, mesh)).compile()
    metrics = {}

    def steps(count: int) -> None:
        nonlocal state, metrics
        for _ in range(count):
            state, metrics = step(state, put_batch(batch, mesh))
        jax.block_until_ready((state, metrics))
        loss = metrics["loss"].value()
        if not math.isfinite(loss):
            raise RuntimeError(f"our loss is {loss}")

    def memory() -> dict[str, int]:
        statistics = device.memory_stats() or {"peak_bytes_in_use": peak_resident()}
        temporaries = step.memory_analysis().temp_size_in_bytes
        return {"peak": statistics["peak_bytes_in_use"], "temporaries": temporaries}

    steps(job["warm_up"])
    about = {"flops": flops(task, state.params, batch), "peak_flops": peak_flops(case.dtype, job["product"])}
    serve(about, steps, memory)


def batch_of(case: Case) -> AudioBatch | LabeledBatch:
    """The clips that both sides learn from, on the host."""
    audio = AudioBatch(clips_of(case), np.full(case.clips, case.samples))
    if case.task == "pretraining":
        return audio
    labels = labels_of(case)
    return LabeledBatch(*audio[:2], labels, np.full(case.clips, labels.shape[1]))


def flops(task, params, batch) -> int:
    """Operations of the products of a step: thrice those of the loss, but once those of a feature encoder that is
    frozen, whose backward pass nobody needs."""
    keys = jax.eval_shape(lambda: example_keys(jax.random.key(0), len(batch.num_samples)))
    forward = count_flops(task.loss, params, batch, keys, jnp.zeros((), jnp.int32))
    if task.model.encoder.feature_gradient_scale:
        return 3 * forward
    encode = functools.partial(
        task.model.encoder.feature_encoder.apply, {"params": params["encoder"]["feature_encoder"]}
    )
    return 3 * forward - 2 * count_flops(encode, batch.waveform, batch.num_samples)


def peak_flops(dtype: str, size: int) -> float:
    """Operations a second of a product of square matrices, the best of five."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    main()
