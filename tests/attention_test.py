import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from w2v2_jax import fused_attention
from w2v2_jax.attention import HEADS, SCALARS, attention, plain_attention
from w2v2_jax.sharding import RULES, MeshShape, make_mesh, on_each_device, placing

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)


def heads(batch=3, frames=13, num_heads=4, head_dim=8, seed=0):
    """Query, key, value, and a gradient to the result."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.array(rng.normal(size=(batch, frames, num_heads, head_dim)), jnp.float32) for _ in range(4))


def with_gradients(attend, query, key, value, gradient):
    result, vjp = jax.vjp(attend, query, key, value)
    return result, *vjp(gradient)


def fused(num_valid, dropout=0.0):
    """The kernels as a function like `attention`, interpreted."""
    seeds, numbers = jnp.arange(len(num_valid)), jnp.arange(4)

    def run(query, key, value, gradient):
        with pltpu.force_tpu_interpret_mode():
            scalars = num_valid, seeds, numbers[: query.shape[2]]
            result = fused_attention.forward(query, key, value, *scalars, dropout=dropout)
            return result, *fused_attention.backward(query, key, value, *scalars, gradient, dropout=dropout)

    return run


def assert_close(found, expected, atol=1e-5):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def test_attention_with_nothing_dropped_equals_that_of_jax():
    num_valid = jnp.array([13, 5, 1])
    mask = (jnp.arange(13)[None, :] < num_valid[:, None])[:, None, None, :]
    expected = with_gradients(functools.partial(jax.nn.dot_product_attention, mask=mask), *heads())
    found = with_gradients(lambda q, k, v: attention(q, k, v, num_valid, KEY, 0.0), *heads())
    assert_close(found, expected)


def test_backward_pass_drops_what_the_forward_pass_dropped():
    """The gradient is that of the same computation without recomputing anything."""
    num_valid = jnp.array([13, 5, 1])
    expected = with_gradients(lambda q, k, v: plain_attention(q, k, v, num_valid, KEY, dropout=0.4), *heads())
    assert_close(with_gradients(lambda q, k, v: attention(q, k, v, num_valid, KEY, 0.4), *heads()), expected)


@pytest.mark.parametrize(
    "frames, num_heads, head_dim",
    [(13, 4, 8), (300, 2, 64), (128, 3, 64), (5, 1, 128)],
    ids=["all heads in a block", "odd length of two blocks of rows", "heads that make no whole lanes", "one head"],
)
def test_kernel_agrees_with_plain_attention_in_results_and_gradients(frames, num_heads, head_dim):
    arrays = heads(2, frames, num_heads, head_dim)
    num_valid = jnp.array([frames, frames // 2])
    plain = functools.partial(plain_attention, num_valid=num_valid, rng=KEY, dropout=0.0)
    assert_close(fused(num_valid)(*arrays), with_gradients(plain, *arrays), atol=2e-5)


def test_kernel_drops_and_scales_the_same_weights_in_both_passes(monkeypatch):
    """The chip's generator isn't here: a pattern of which every fifth weight is dropped stands for its bits."""

    def kept(shape, dropout):
        assert dropout == 0.2
        row, frame = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        return (row + frame) % 5 > 0

    monkeypatch.setattr(fused_attention, "_kept", kept)

    def expected(query, key, value):
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", query, key) / np.sqrt(8), axis=-1)
        keep = (np.arange(13)[:, None] + np.arange(13)) % 5 > 0
        return jnp.einsum("bhts,bshd->bthd", weights * jnp.array(keep / 0.8)[None, None], value)

    assert_close(fused(jnp.full(3, 13), dropout=0.2)(*heads()), with_gradients(expected, *heads()))


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.9])
def test_share_of_the_chips_bits_that_drop_is_the_rate(monkeypatch, dropout):
    bits = np.random.default_rng(0).integers(-(2**31), 2**31, (500, 400)).astype(np.int32)
    monkeypatch.setattr(fused_attention.pltpu, "prng_random_bits", lambda shape: jnp.array(bits))
    kept = fused_attention._kept(bits.shape, dropout)
    assert kept.mean() == pytest.approx(1 - dropout, abs=4e-3 if dropout else 0)


def test_kernel_on_a_mesh_equals_that_on_one_device():
    arrays = heads(batch=4)
    num_valid = jnp.array([13, 5, 1, 13])
    with placing(make_mesh(jax.devices()[:4], MeshShape(fsdp=2, tensor=2)), RULES):
        kernel = functools.partial(fused_attention.forward, dropout=0.0)
        cut = on_each_device(kernel, (*(HEADS,) * 3, *SCALARS), HEADS)
        with pltpu.force_tpu_interpret_mode():
            found = jax.jit(cut)(*arrays[:3], num_valid, jnp.arange(4), jnp.arange(4))
    np.testing.assert_allclose(found, fused(num_valid)(*arrays)[0], atol=1e-6)


def test_long_sequences_and_odd_heads_are_left_to_plain_attention():
    assert fused_attention.fits(jnp.zeros((1, 1024, 2, 64)))
    assert not fused_attention.fits(jnp.zeros((1, 1025, 2, 64)))
    assert not fused_attention.fits(jnp.zeros((1, 16, 2, 80)))
