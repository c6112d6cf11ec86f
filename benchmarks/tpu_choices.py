"""What choices in the network are worth on a TPU, without one: estimates of its compiler for one v5e chip.

    pip install '.[tpu-plan]'
    python benchmarks/tpu_choices.py

Each part of BASE is compiled with its gradients in bfloat16, as it is and as it might be: half an hour in all. Writes
benchmarks/results/tpu_choices.md. Estimates rank designs; they promise no times.
"""

import functools
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from report import RESULTS, publish

from w2v2_jax import frames, layers, presets
from w2v2_jax.attention import attention, plain_attention
from w2v2_jax.context_network import conv_in_blocks, convolution_of_blocks
from w2v2_jax.planning import hlo
from w2v2_jax.planning.chips import parse_slice
from w2v2_jax.planning.compiler import compile_for_tpu, devices_of, use_no_accelerator
from w2v2_jax.planning.costs import program_cost
from w2v2_jax.sharding import make_mesh

CHIP = parse_slice("v5e:1x1")
NUM_SAMPLES, NUM_FRAMES = 250_000, 768
TEXT = (
    "Parts of BASE and their gradients, bfloat16, one v5e chip: clips of 250,000 samples for the feature encoder, of "
    f"{NUM_FRAMES} frames for the rest. Milliseconds are the planner's estimates, see w2v2_jax/planning/costs.py, of "
    "the compiled programs; none was run on a TPU."
)


class Choice(NamedTuple):
    """A way to compute a part: a function of floating-point arrays (and others), and their shapes."""

    part: str
    way: str
    function: Callable[..., jax.Array]
    arguments: tuple[Any, ...]


def main() -> None:
    """Compiles all choices and writes the table."""
    use_no_accelerator()
    rows = []
    for choice in choices():
        seconds, temporaries = estimate(choice.function, choice.arguments)
        rows.append((choice.part, choice.way, f"{seconds * 1e3:.2f}", f"{temporaries / 1e9:.2f}"))
        print(*rows[-1], flush=True)
    headers = ("part", "way", "estimated ms", "temporaries GB")
    compiler = f"libtpu {version('libtpu')}"
    publish(RESULTS / "tpu_choices.md", "What choices are worth on a TPU", TEXT, headers, rows, compiler)


def choices() -> Iterator[Choice]:
    """The ways as they are come first."""
    for clips in (2, 5, 8):
        for num_parts in (8, 1):
            yield encoder(clips, num_parts)
    x = shape(8, NUM_FRAMES, 768)
    for block in (2, 1, 4):
        conv = functools.partial(conv_in_blocks, block=block, convolve=convolution_of_blocks)
        yield Choice("positional convolution, 8 clips", f"blocks of {block}", conv, (x, shape(128, 48, 768)))
    wide = shape(8, 49_999, 512)
    yield Choice("GELU of 8 x 49,999 x 512", "fit of erf, rounded to bfloat16", layers.gelu, (wide,))
    yield Choice("GELU of 8 x 49,999 x 512", "erf", functools.partial(jax.nn.gelu, approximate=False), (wide,))
    heads = (shape(8, NUM_FRAMES, 12, 64),) * 3
    num_valid, key = shape(8, dtype=jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    for way, compute in (("fused", attention), ("XLA", plain_attention)):
        given = (*heads, num_valid, key)
        yield Choice("attention of a layer, 8 clips", way, functools.partial(attend, compute), given)


def encoder(clips: int, num_parts: int) -> Choice:
    """The feature encoder with its parameters."""
    module = presets.base().encoder.feature_encoder.clone(num_parts=num_parts)
    waveform, num_samples = shape(clips, NUM_SAMPLES), shape(clips, dtype=jnp.int32)
    params = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), waveform, num_samples))
    part = f"feature encoder, {clips} clips ({frames.num_frames(NUM_SAMPLES, module.layers)} frames)"
    way = "in 8 parts" if num_parts > 1 else "in one piece"
    return Choice(part, way, module.apply, (params, waveform, num_samples))


def attend(compute: Callable[..., jax.Array], query, key, value, num_valid, rng) -> jax.Array:
    """Attention with BASE's dropout."""
    if compute is attention:
        return attention(query, key, value, num_valid, rng, 0.1)
    return plain_attention(query, key, value, num_valid, rng, dropout=0.1)


def shape(*sizes: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    """An array that isn't there."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def estimate(function: Callable[..., jax.Array], arguments: tuple[Any, ...]) -> tuple[float, int]:
    """Seconds and bytes of temporaries of a function with its gradients by all floating-point arguments."""
    mesh = make_mesh(devices_of(CHIP))
    here = jax.sharding.NamedSharding(mesh, PartitionSpec())
    arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), arguments)
    leaves, tree = jax.tree.flatten(arguments)
    trained = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def with_gradients(leaves, cotangent):
        def of(varied):
            rest = iter(varied)
            return function(*tree.unflatten([next(rest) if is_trained else leaf for leaf, is_trained in both]))

        both = list(zip(leaves, trained, strict=True))
        y, pull = jax.vjp(of, [leaf for leaf, is_trained in both if is_trained])
        return y, pull(cotangent)

    output = jax.eval_shape(function, *arguments)
    output = jax.ShapeDtypeStruct(output.shape, output.dtype, sharding=here)
    lowered = jax.jit(with_gradients).trace(leaves, output).lower(lowering_platforms=("tpu",))
    compiled = compile_for_tpu(lowered)
    cost = program_cost(hlo.parse(compiled.as_text()), CHIP.chip)
    return cost.seconds, compiled.memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    main()
