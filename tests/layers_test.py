import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.layers import BERT_INIT, TORCH_INIT, UNIT_UNIFORM, Dropout, LayerNorm, Linear, gelu, scale_gradient, swish


def test_gelu_is_x_times_the_normal_distribution_function():
    x = np.linspace(-6, 6, 101)
    expected = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x]
    np.testing.assert_allclose(gelu(jnp.array(x, jnp.float32)), expected, atol=1e-6)


def every_bfloat16():
    """Without infinities and NaN."""
    values = np.arange(2**16, dtype=np.uint16).view(jnp.bfloat16)
    return values[np.isfinite(values.astype(np.float32))]


def normal_distribution(x):
    return np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x])


def test_gelu_of_bfloat16_is_off_by_no_more_than_rounding_is_twice():
    """By one unit of the last place, half of which is rounding; or, far down the tail, by a millionth."""
    x = every_bfloat16()
    found = gelu(jnp.array(x))
    x = x.astype(np.float64)
    expected = x * normal_distribution(x)
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(expected), 1e-6))) - 7)
    assert found.dtype == jnp.bfloat16
    assert (np.abs(np.float64(found.astype(jnp.float32)) - expected) <= np.maximum(unit, 1e-6)).all()


def test_gelu_in_bfloat16_of_float32_rounds_only_what_comes_out():
    x = jnp.linspace(-4, 4, 1001)
    found, exact = gelu(x, jnp.bfloat16), np.float64(x) * normal_distribution(np.float64(x))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0.005, atol=5e-6)


def test_gradient_of_gelu_of_bfloat16_is_off_by_less_than_rounding():
    x = every_bfloat16()
    found = jax.vmap(jax.grad(gelu))(jnp.array(x)).astype(jnp.float32)
    x = x.astype(np.float64)
    expected = normal_distribution(x) + x * np.exp(-(np.minimum(np.abs(x), 40) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=5e-4)


def test_swish_is_x_times_its_logistic_function():
    x = np.linspace(-20, 20, 101)
    np.testing.assert_allclose(swish(jnp.array(x, jnp.float32)), x / (1 + np.exp(-x)), rtol=1e-5, atol=1e-12)


def test_swish_of_bfloat16_is_rounded_once():
    x = jnp.linspace(-8, 8, 81).astype(jnp.bfloat16)
    exact = np.float64(x.astype(jnp.float32))
    assert swish(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(swish(x).astype(jnp.float32), exact / (1 + np.exp(-exact)), rtol=2**-8)


def test_linear_sums_over_the_axes_that_its_names_have_before_the_output():
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
    linear = Linear((6,), ("head", "head_dim", "embed"))
    params = nn.unbox(linear.init(jax.random.key(0), x))["params"]
    expected = np.einsum("bthd,hde->bte", x, params["kernel"]) + np.array(params["bias"])
    np.testing.assert_allclose(linear.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


def test_linear_without_bias_has_a_kernel_alone():
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
    y, params = Linear((6,), ("embed", "mlp"), use_bias=False).init_with_output(jax.random.key(0), x)
    params = nn.unbox(params)["params"]
    assert params.keys() == {"kernel"}
    np.testing.assert_allclose(y, np.einsum("bti,io->bto", x, params["kernel"]), rtol=1e-5, atol=1e-5)


def test_torch_init_is_uniform_within_one_over_the_root_of_the_inputs():
    params = nn.unbox(Linear((200,), ("a", "b"), TORCH_INIT).init(jax.random.key(0), jnp.zeros((1, 400))))["params"]
    for weights in params.values():
        assert jnp.abs(weights).max() == pytest.approx(1 / 20, rel=0.02)
        assert weights.std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.1)


def test_bert_init_has_a_standard_deviation_of_0_02_and_no_bias():
    params = nn.unbox(Linear((200,), ("a", "b"), BERT_INIT).init(jax.random.key(0), jnp.zeros((1, 400))))["params"]
    assert params["kernel"].std() == pytest.approx(0.02, rel=0.02)
    assert not params["bias"].any()


def test_unit_uniform_fills_0_to_1():
    """A hundred times more than jax's own `uniform()`, which stops at 0.01."""
    values = UNIT_UNIFORM(jax.random.key(0), (10000,))
    assert values.mean() == pytest.approx(0.5, abs=0.02)
    assert values.min() >= 0
    assert 0.99 < values.max() < 1


def test_layer_norm_computes_in_float32_whatever_its_input():
    x = jnp.array(np.random.default_rng(0).normal(size=(3, 64)) + 100, jnp.bfloat16)
    y, params = LayerNorm().init_with_output(jax.random.key(0), x)
    exact = np.float64(x.astype(jnp.float32))
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=2e-2)


def test_layer_norm_of_equal_values_is_its_bias():
    assert not LayerNorm().init_with_output(jax.random.key(0), jnp.full((2, 8), 3.0))[0].any()


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate):
    y = Dropout(rate).apply({}, jnp.ones((1000, 1000)), rngs={"dropout": jax.random.key(0)})
    assert (y == 0).mean() == pytest.approx(rate, abs=1 / 256)
    assert y.mean() == pytest.approx(1, abs=0.005)
    assert len(np.unique(y)) == 2


def test_dropout_without_a_key_is_the_identity():
    x = jnp.arange(5.0)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x), x)


def test_a_dropout_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="keeps nothing"):
        Dropout(1.0)


def test_scale_gradient_changes_the_gradient_and_nothing_else():
    x = jnp.array([1.0, -2.0])
    value, gradient = jax.value_and_grad(lambda x: (scale_gradient(x, 0.1) ** 2).sum())(x)
    assert value == 5
    np.testing.assert_allclose(gradient, 0.1 * 2 * x, rtol=1e-6)
