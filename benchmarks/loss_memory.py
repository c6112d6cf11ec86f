"""Memory of the contrastive loss with its quantizer, against an implementation that gathers the distractors' vectors.

    python benchmarks/loss_memory.py [--clips N]

Both get the context vectors and features of the masked frames of N clips of 15.4 s (8 unless told otherwise) at the
sizes of BASE and LARGE with 100 distractors, and give the loss with what is logged of it, and the gradients of vectors
and parameters. What is compared are the temporaries of the compiled programs, as XLA reports them for this device. A
small case is computed too: both must agree. Writes benchmarks/results/loss_memory.md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from report import RESULTS, publish

from w2v2_jax import presets
from w2v2_jax.losses import ContrastiveLoss, contrastive_loss, diversity_loss, mean_probs, perplexity, unit
from w2v2_jax.masking import TIME_MASK
from w2v2_jax.quantizer import GumbelQuantizer

NUM_SAMPLES = 245_840
NUM_DISTRACTORS = 100
GOAL = 25


class Inputs(NamedTuple):
    """Of the masked frames: `context` where it is compared, `features` for the quantizer, all that is drawn."""

    context: jax.Array
    features: jax.Array
    noise: jax.Array
    distractors: jax.Array


def main() -> None:
    """Checks that both agree, and compares their memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the table")
    options = parser.parse_args()
    rows = []
    for preset in ("base", "large"):
        model = getattr(presets, preset)()
        check_equal(model.quantizer)
        num_masked = TIME_MASK.max_masked(model.encoder.num_frames(NUM_SAMPLES))
        inputs = shapes(model.quantizer, options.clips, num_masked, NUM_DISTRACTORS)
        for part, make in (("loss", loss_alone), ("loss and quantizer", loss_and_quantizer)):
            ours, gathered = (
                temporaries(*make(model.quantizer, loss, inputs)) for loss in (contrastive_loss, by_vectors)
            )
            rows.append((preset.upper(), part, f"{ours / 1e6:.1f}", f"{gathered / 1e6:.0f}", f"{gathered / ours:.1f}"))
    text = (
        f"Temporaries of loss and gradients as compiled by XLA: {options.clips} clips of {NUM_SAMPLES} samples, "
        f"{num_masked} masked frames each, {NUM_DISTRACTORS} distractors, float32. The goal is a ratio of {GOAL}."
    )
    headers = ("network", "part", "ours MB", "gathered vectors MB", "ratio")
    device = jax.devices()[0].device_kind
    publish(options.results / "loss_memory.md", "Memory of loss and quantizer", text, headers, rows, device)


def by_vectors(context, quantized, codes, distractors, temperature) -> ContrastiveLoss:
    """`contrastive_loss` by copying the vectors of all distractors, the obvious way."""
    pick = jax.vmap(lambda rows, indices: rows[indices])
    candidates = jnp.concatenate([quantized[:, :, None], pick(quantized, distractors)], axis=2)
    scores = jnp.sum(unit(context)[:, :, None] * unit(candidates), axis=-1) / temperature
    same = (codes[:, :, None] == pick(codes, distractors)).all(axis=-1)
    target, others = scores[:, :, 0], jnp.where(same, -jnp.inf, scores[:, :, 1:])
    scores = jnp.concatenate([target[:, :, None], others], axis=2)
    correct = (target >= scores.max(axis=2)) & (target > scores.min(axis=2))
    return ContrastiveLoss(jax.nn.logsumexp(scores, axis=2) - target, correct)


def loss_alone(quantizer: GumbelQuantizer, loss: Callable, inputs: Inputs) -> tuple:
    """A function from vectors to the loss and their gradients, and its arguments."""
    codes = jax.ShapeDtypeStruct((*inputs.context.shape[:2], quantizer.num_groups), jnp.int32)

    def objective(vectors, codes, distractors):
        result = loss(*vectors, codes, distractors, 0.1)
        return result.loss.sum(), result.correct.sum()

    return jax.value_and_grad(objective, has_aux=True), (inputs.context, inputs.context), codes, inputs.distractors


def loss_and_quantizer(quantizer: GumbelQuantizer, loss: Callable, inputs: Inputs) -> tuple:
    """The same from features, with the parameters' gradients, the diversity loss and the perplexities."""

    def objective(learned, noise, distractors):
        params, kernel, context, features = learned
        quantized = quantizer.apply({"params": params}, features, noise, 2.0)
        result = loss(context, quantized.vectors @ kernel, quantized.codes, distractors, 0.1)
        weight = jnp.ones(quantized.codes.shape[:2])
        expected = mean_probs(quantized.probs, weight)
        chosen = mean_probs(jax.nn.one_hot(quantized.probs.argmax(axis=-1), quantizer.num_entries), weight)
        logged = result.correct.sum(), perplexity(expected), perplexity(chosen)
        return result.loss.sum() + 0.1 * weight.sum() * diversity_loss(expected), logged

    init = jax.eval_shape(
        lambda x, noise: quantizer.init(jax.random.key(0), x, noise, 1.0), inputs.features, inputs.noise
    )
    kernel = jax.ShapeDtypeStruct((quantizer.dim, quantizer.dim), jnp.float32)
    learned = (nn.unbox(init)["params"], kernel, inputs.context, inputs.features)
    return jax.value_and_grad(objective, has_aux=True), learned, inputs.noise, inputs.distractors


def shapes(quantizer: GumbelQuantizer, clips: int, num_masked: int, num_distractors: int) -> Inputs:
    """What the masked frames of a batch come to."""
    entries = (quantizer.num_groups, quantizer.num_entries)
    floats = [(quantizer.dim,), (512,), entries]
    arrays = (jax.ShapeDtypeStruct((clips, num_masked, *shape), jnp.float32) for shape in floats)
    return Inputs(*arrays, jax.ShapeDtypeStruct((clips, num_masked, num_distractors), jnp.int32))


def temporaries(function: Callable, *arguments) -> int:
    """Bytes that the compiled function needs beside its arguments and results."""
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def check_equal(quantizer: GumbelQuantizer) -> None:
    """Raises AssertionError if the two differ in loss or gradients on random numbers."""
    rng = np.random.default_rng(0)
    inputs = shapes(quantizer, clips=2, num_masked=20, num_distractors=10)

    def random(shape):
        if shape.dtype == jnp.int32:
            return jnp.asarray((np.arange(20)[:, None] + rng.integers(1, 20, shape.shape)) % 20)
        return jnp.asarray(rng.standard_normal(shape.shape), jnp.float32)

    function, *arguments = loss_and_quantizer(quantizer, contrastive_loss, inputs)
    other, *_ = loss_and_quantizer(quantizer, by_vectors, inputs)
    arguments = jax.tree.map(random, arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), function(*arguments), other(*arguments)
    )


if __name__ == "__main__":
    main()
