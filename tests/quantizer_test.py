import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.quantizer import GumbelQuantizer

GROUPS, ENTRIES, DIM = 2, 6, 8
QUANTIZER = GumbelQuantizer(DIM, GROUPS, ENTRIES)


def features(dtype=jnp.float32):
    return jnp.array(np.random.default_rng(0).normal(size=(3, 5, 7)), dtype)


def gumbel(seed=1, frames=(3, 5)):
    return jax.random.gumbel(jax.random.key(seed), (*frames, GROUPS, ENTRIES))


PARAMS = nn.unbox(QUANTIZER.init(jax.random.key(0), features(), gumbel(), 1.0))["params"]
NO_NOISE = jnp.zeros((3, 5, GROUPS, ENTRIES))


def quantize(noise, temperature, x=None, params=PARAMS):
    return QUANTIZER.apply({"params": params}, features() if x is None else x, noise, temperature)


def logits():
    return jnp.einsum("bfd,dgv->bfgv", features(), PARAMS["logits"]["kernel"])


@pytest.mark.parametrize("temperature", [2.0, 0.5, 0.1])
def test_vectors_are_entries_of_the_codebook_exactly_while_training(temperature):
    """Hard in the forward pass, bit for bit: a soft mixture would never equal its distractors."""
    quantized = jax.jit(quantize)(gumbel(), temperature)
    entries = PARAMS["codebook"][jnp.arange(GROUPS), quantized.codes]
    np.testing.assert_array_equal(quantized.vectors, entries.reshape(3, 5, DIM))


def test_gradients_are_those_of_the_soft_choice():
    weights = jnp.array(np.random.default_rng(2).normal(size=(3, 5, GROUPS, DIM // GROUPS)), jnp.float32)

    def hard(bias):
        params = {**PARAMS, "logits": {**PARAMS["logits"], "bias": bias}}
        return (quantize(gumbel(), 0.7, params=params).vectors.reshape(weights.shape) * weights).sum()

    def soft(bias):
        choice = jax.nn.softmax((logits() + bias[None, None] + gumbel()) / 0.7)
        return (jnp.einsum("bfgv,gvd->bfgd", choice, PARAMS["codebook"]) * weights).sum()

    bias = jnp.zeros((GROUPS, ENTRIES))
    np.testing.assert_allclose(jax.grad(hard)(bias), jax.grad(soft)(bias), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_features_and_only_the_chosen_entries():
    def loss(x, params):
        quantized = quantize(gumbel(), 1.0, x, params)
        return jnp.square(quantized.vectors).sum(), quantized.codes

    (to_features, to_params), codes = jax.grad(loss, argnums=(0, 1), has_aux=True)(features(), PARAMS)
    assert (jnp.abs(to_features).max(axis=-1) > 0).all()
    chosen = jax.nn.one_hot(codes, ENTRIES).any(axis=(0, 1))
    np.testing.assert_array_equal(jnp.abs(to_params["codebook"]).max(axis=-1) > 0, chosen)


def test_without_noise_the_likeliest_entries_are_chosen():
    np.testing.assert_array_equal(quantize(NO_NOISE, 1.0).codes, logits().argmax(-1))


def test_with_gumbel_noise_entries_are_chosen_as_often_as_the_softmax_has_it():
    draws = 4000
    params = {**PARAMS, "logits": {**PARAMS["logits"], "bias": jnp.array([[0.0, 1, 2, -1, 0, 0.5], [0.0] * 6])}}
    noise = gumbel(frames=(draws, 1))
    codes = quantize(noise, 0.7, jnp.zeros((draws, 1, 7)), params).codes[:, 0]
    for group in range(GROUPS):
        frequency = np.bincount(codes[:, group], minlength=ENTRIES) / draws
        np.testing.assert_allclose(frequency, jax.nn.softmax(params["logits"]["bias"][group]), atol=0.03)


def test_probs_are_the_softmax_without_noise_or_temperature():
    np.testing.assert_allclose(quantize(gumbel(), 0.1).probs, jax.nn.softmax(logits()), rtol=1e-5, atol=1e-6)


def test_codebook_starts_uniform_from_0_to_1_and_logits_normal():
    quantizer = GumbelQuantizer(64, 2, 40)
    variables = jax.jit(quantizer.init)(jax.random.key(0), jnp.zeros((1, 1, 100)), jnp.zeros((1, 1, 2, 40)), 1.0)
    params = nn.unbox(variables)["params"]
    assert params["codebook"].mean() == pytest.approx(0.5, abs=0.03)
    assert params["codebook"].min() >= 0
    assert params["codebook"].max() > 0.99
    assert params["logits"]["kernel"].std() == pytest.approx(1, rel=0.05)
    assert not params["logits"]["bias"].any()


def test_quantizes_in_float32_whatever_the_features():
    quantized = quantize(NO_NOISE, 1.0, features(jnp.bfloat16))
    assert quantized.vectors.dtype == quantized.probs.dtype == jnp.float32


def test_every_product_is_of_highest_precision():
    """On a TPU the default would choose codes by logits rounded to bfloat16. One is forward, three are backward."""
    quantizer, arguments = GumbelQuantizer(dim=4, num_entries=3), (jnp.ones((1, 2, 5)), jnp.zeros((1, 2, 2, 3)), 1.0)
    params = quantizer.init(jax.random.key(0), *arguments)
    program = str(jax.make_jaxpr(jax.grad(lambda params: quantizer.apply(params, *arguments).vectors.sum()))(params))
    assert program.count("dot_general[") == program.count("precision=(Precision.HIGHEST") == 4


def test_codebooks_that_cannot_share_the_dimensions_are_refused():
    with pytest.raises(ValueError, match="3 codebooks can't share 256"):
        GumbelQuantizer(256, num_groups=3)
