import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.context_network import (
    ContextNetwork,
    PositionalConv,
    PostNormLayer,
    PreNormLayer,
    dropped_attention,
    grouped_conv,
    tap_norms,
)
from w2v2_jax.layers import Identity, LayerNorm

pytestmark = pytest.mark.usefixtures("quick_compilation")

EMBED, FRAMES, LAYERS = 16, 13, 3
POSITION = PositionalConv(width=6, num_groups=4)
POST_NORM = ContextNetwork(LAYERS, PostNormLayer(4, 24), position=POSITION, layer_drop=0.5)
PRE_NORM = ContextNetwork(
    LAYERS, PreNormLayer(4, 24), first_norm=Identity, last_norm=LayerNorm, position=POSITION, layer_drop=0.5
)


@pytest.fixture(scope="module", params=[POST_NORM, PRE_NORM], ids=["post-norm", "pre-norm"])
def network(request):
    return request.param


def latents(batch=3):
    return jnp.array(np.random.default_rng(0).normal(size=(batch, FRAMES, EMBED)), jnp.float32)


def valid_frames(*counts):
    return jnp.arange(FRAMES)[None, :] < jnp.array(counts)[:, None]


@functools.cache
def params_of(network):
    variables = nn.unbox(jax.jit(network.init)(jax.random.key(0), latents(), valid_frames(13, 13, 13)))
    return {"params": variables["params"]}


@functools.cache
def hidden_states(network):
    """Compiled: the outputs of the layers, given the keys of what is dropped."""

    def run(x, valid, rngs):
        state = network.apply(params_of(network), x, valid, rngs=rngs, mutable=["intermediates"])[1]
        return state["intermediates"]["layer"]["hidden"][0]

    return jax.jit(run)


def test_padding_does_not_change_a_clip_even_if_it_is_nan(network):
    x = latents()
    valid = valid_frames(13, 9, 2)
    dirty = jnp.where(valid[:, :, None], x, jnp.nan)
    apply = jax.jit(network.apply)
    together = apply(params_of(network), dirty, valid)
    for row, count in ((1, 9), (2, 2)):
        alone = apply(params_of(network), x[row : row + 1, :count], jnp.ones((1, count), bool))
        np.testing.assert_allclose(together[row, :count], alone[0], atol=1e-5)


def test_layers_are_dropped_whole_as_often_as_asked(network):
    """A dropped layer hands on what it was given; the first one's input is not among the hidden states."""
    keys = jax.random.split(jax.random.key(0), 300)
    valid = valid_frames(13, 13, 13)
    hidden = jax.lax.map(lambda key: hidden_states(network)(latents(), valid, {"layer_drop": key}), keys)
    same = np.array((hidden[:, 1:] == hidden[:, :-1]).mean(axis=(2, 3, 4)))
    assert set(np.unique(same)) == {0.0, 1.0}
    assert same.mean() == pytest.approx(0.5, abs=0.07)


def test_no_layer_is_dropped_without_a_key(network):
    hidden = hidden_states(network)(latents(), valid_frames(13, 13, 13), {})
    assert (hidden[1:] != hidden[:-1]).any(axis=(1, 2, 3)).all()


def test_dropped_layers_get_no_gradient_and_the_others_finite_ones():
    network = POST_NORM

    def loss(params, key):
        rngs = {"layer_drop": key}
        return (network.apply(params, latents(), valid_frames(13, 9, 2), rngs=rngs) * latents()).sum()

    gradients = jax.jit(jax.grad(loss))
    touched = set()
    for seed in range(6):
        per_layer = gradients(params_of(network), jax.random.key(seed))["params"]["layer"]["feed_forward"]["up"]
        touched |= {bool(jnp.abs(g).max() > 0) for g in per_layer["kernel"]}
        assert jnp.isfinite(per_layer["kernel"]).all()
    assert touched == {True, False}


def test_recomputing_a_layer_gives_the_same_gradients():
    def gradients(policy):
        network = POST_NORM.clone(remat_policy=policy)

        def loss(params):
            rngs = {"dropout": jax.random.key(1)}
            return (network.apply(params, latents(), valid_frames(13, 9, 2), rngs=rngs) * latents()).sum()

        return jax.jit(jax.grad(loss))(params_of(POST_NORM))

    kept, recomputed = (gradients(getattr(jax.checkpoint_policies, f"{n}_saveable")) for n in ("everything", "nothing"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), recomputed, kept)


def test_attention_with_nothing_dropped_equals_that_of_jax():
    query, key, value = jnp.array(np.random.default_rng(0).normal(size=(3, 2, FRAMES, 4, 8)), jnp.float32)
    mask = valid_frames(13, 5)[:, None, None, :]
    ours = dropped_attention(lambda weights: weights)(query, key, value, mask)
    np.testing.assert_allclose(ours, jax.nn.dot_product_attention(query, key, value, mask=mask), atol=1e-5)


def test_attention_dropout_acts_on_the_weights():
    """With every weight doubled the output doubles: what is dropped is not the output's channels."""
    query, key, value = jnp.array(np.random.default_rng(0).normal(size=(3, 2, FRAMES, 4, 8)), jnp.float32)
    mask = valid_frames(13, 5)[:, None, None, :]
    plain = dropped_attention(lambda weights: weights)(query, key, value, mask)
    doubled = dropped_attention(lambda weights: 2 * weights)(query, key, value, mask)
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 6, 7])
@pytest.mark.parametrize("block", [1, 3, 8])
def test_grouped_convolution_in_blocks_equals_that_of_xla(width, block):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, FRAMES, EMBED), (width, 4, EMBED)))
    before, after = width // 2, width - 1 - width // 2
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1,), ((before, after),), dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=EMBED // 4
    )
    np.testing.assert_allclose(grouped_conv(x, kernel, block), expected, atol=1e-5)


def test_length_of_a_taps_direction_plays_no_part():
    """Weight norm is per tap: each may be scaled on its own."""
    x = latents()
    params = nn.unbox(POSITION.init(jax.random.key(0), x))["params"]
    scaled = {**params, "direction": params["direction"] * jnp.arange(1.0, 7)[:, None, None]}
    before, after = (POSITION.apply({"params": p}, x) for p in (params, scaled))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_magnitude_of_a_tap_scales_that_tap_alone():
    """With the bias at 0 and one tap left, the output before the GELU is that tap's alone."""
    x = latents()
    params = nn.unbox(POSITION.init(jax.random.key(0), x))["params"]
    np.testing.assert_allclose(params["magnitude"], tap_norms(params["direction"]), rtol=1e-6)
    kernel = params["direction"][4] / tap_norms(params["direction"])[4]
    only_fourth = {**params, "magnitude": jnp.zeros(6).at[4].set(50.0)}
    # Tap 4 of 6, 3 of which come before the frame, sees one frame ahead; group g reads channels 4 g to 4 g + 3.
    shifted = np.pad(np.array(x), ((0, 0), (0, 1), (0, 0)))[:, 1:].reshape(3, FRAMES, 4, 4)
    expected = 50 * np.einsum("btgc,cgf->btgf", shifted, np.array(kernel).reshape(4, 4, 4)).reshape(x.shape)
    np.testing.assert_allclose(
        POSITION.apply({"params": only_fourth}, x), jax.nn.gelu(expected, approximate=False), atol=1e-4
    )


def test_positions_start_with_variance_4_over_width_times_dimensions():
    conv = PositionalConv(width=128, num_groups=16)
    params = nn.unbox(jax.jit(conv.init)(jax.random.key(0), jnp.zeros((1, 3, 256))))["params"]
    assert params["direction"].std() == pytest.approx(math.sqrt(4 / (128 * 256)), rel=0.02)
    assert not params["bias"].any()


def test_linear_maps_start_as_in_bert():
    params = params_of(POST_NORM)["params"]["layer"]
    for path in (("attention", "query"), ("attention", "out"), ("feed_forward", "up"), ("feed_forward", "down")):
        weights = params[path[0]][path[1]]
        assert weights["kernel"].std() == pytest.approx(0.02, rel=0.15)
        assert not weights["bias"].any()


def test_layers_start_with_weights_of_their_own():
    kernel = params_of(POST_NORM)["params"]["layer"]["feed_forward"]["up"]["kernel"]
    assert kernel.shape[0] == LAYERS
    assert (kernel[0] != kernel[1]).mean() > 0.99
