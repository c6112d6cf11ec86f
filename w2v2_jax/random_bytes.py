"""Many random bytes for little: what dropout needs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8, UInt32


def random_bytes(rng: Key[Array, ""], shape: tuple[int, ...]) -> UInt8[Array, "..."]:
    """Uniform over 0 to 255: a byte for each place of an array from its number and the key alone.

    It is arithmetic that fuses with what uses the bytes, a fiftieth of the work of a generator on a CPU. Each device
    makes those of its own part of the array; of a TPU's own generator each chip would make all bytes of all chips. For
    dropout, not for statistics or secrets.
    """
    first, second = jax.random.bits(rng, (2,))
    place = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    # Of one round the order of the numbers would depend on the key, but not which there are.
    return (_mixed(_mixed(place ^ first) ^ second) >> 24).astype(jnp.uint8)


def _mixed(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finaliser of MurmurHash3 (Appleby): one bit in changes each bit out about half of the time."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
