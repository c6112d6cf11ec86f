import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.conformer import CarriedPositionalConv
from w2v2_jax.context_network import (
    AdaptedPreNormLayer,
    AttentionAdapter,
    ContextNetwork,
    PositionalConv,
    PostNormLayer,
    PreNormLayer,
    SelfAttention,
    conv_in_blocks,
    convolution_of_blocks,
    grouped_conv,
    product_of_windows,
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
        return network.apply(params_of(network), x, valid, rngs=rngs).hidden[1:]

    return jax.jit(run)


def test_padding_does_not_change_a_clip_even_if_it_is_nan(network):
    x = latents()
    valid = valid_frames(13, 9, 2)
    dirty = jnp.where(valid[:, :, None], x, jnp.nan)
    apply = jax.jit(network.apply)
    together = apply(params_of(network), dirty, valid)
    for row, count in ((1, 9), (2, 2)):
        alone = apply(params_of(network), x[row : row + 1, :count], jnp.ones((1, count), bool))
        np.testing.assert_allclose(together.context[row, :count], alone.context[0], atol=1e-5)
        np.testing.assert_allclose(together.hidden[:, row, :count], alone.hidden[:, 0], atol=1e-5)


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
        return (network.apply(params, latents(), valid_frames(13, 9, 2), rngs=rngs).context * latents()).sum()

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
            return (network.apply(params, latents(), valid_frames(13, 9, 2), rngs=rngs).context * latents()).sum()

        return jax.jit(jax.grad(loss))(params_of(POST_NORM))

    kept, recomputed = (gradients(getattr(jax.checkpoint_policies, f"{n}_saveable")) for n in ("everything", "nothing"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), recomputed, kept)


QK = ("query", "key")


@functools.cache
def attention_that_shows_its_weights():
    """Output channel (h, c, s) of frame t is the weight of head h from t to frame s, in two copies c.

    The input has a channel for each frame; each head's values carry it on twice and the output map is the identity.
    """
    dim = 4 * FRAMES
    rng = np.random.default_rng(0)
    scores = {name: {"kernel": rng.normal(size=(dim, 2, 2 * FRAMES)), "bias": np.zeros((2, 2 * FRAMES))} for name in QK}
    twice = np.tile(np.eye(dim, FRAMES), (1, 2))
    params = scores | {
        "value": {"kernel": np.stack([twice, twice], axis=1), "bias": np.zeros((2, 2 * FRAMES))},
        "out": {"kernel": np.eye(dim).reshape(2, 2 * FRAMES, dim), "bias": np.zeros(dim)},
    }
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)


def attention_weights(rate, **rngs):
    """[clip, frame, head, copy, frame] of clips of 13, 13, 13 and 5 frames."""
    x = jnp.broadcast_to(jnp.eye(FRAMES, 4 * FRAMES), (4, FRAMES, 4 * FRAMES))
    params = {"params": attention_that_shows_its_weights()}
    y = SelfAttention(num_heads=2, dropout=rate).apply(params, x, valid_frames(13, 13, 13, 5), rngs=rngs)
    return np.array(y).reshape(4, FRAMES, 2, 2, FRAMES)


def test_attention_without_dropout_has_softmax_weights_over_valid_frames():
    query, key = (np.float64(attention_that_shows_its_weights()[name]["kernel"][:FRAMES]) for name in QK)
    weights = np.exp(np.einsum("thd,shd->ths", query, key) / math.sqrt(2 * FRAMES))
    for clip, count in zip(attention_weights(0.0), (13, 13, 13, 5), strict=True):
        expected = weights[:, :, :count] / weights[:, :, :count].sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(clip[..., :count], np.stack([expected, expected], axis=2), rtol=1e-4)
        assert not clip[..., count:].any()


def test_attention_dropout_acts_on_the_weights():
    """The kept ones are softmax weights over the share that is kept, 0.3 being met by 77/256; the others are 0.

    Both copies of a weight go together, unlike channels of the output; each frame, head and clip drops others, unlike
    the values.
    """
    weights, dropped = attention_weights(0.3), attention_weights(0.3, dropout=jax.random.key(0))
    kept = dropped[:, :, :, 0] != 0
    np.testing.assert_array_equal(dropped[:, :, :, 1] != 0, kept)
    expected = np.where(kept[:, :, :, None], weights / (1 - 77 / 256), 0)
    np.testing.assert_allclose(dropped, expected, rtol=1e-5)
    assert kept[:3].mean() == pytest.approx(1 - 77 / 256, abs=0.05)
    assert all((kept[:3] != kept[:3].take([0], axis)).any() for axis in range(4))


def random_params(module):
    """Drawn by numpy, which needs no compilation; not as the module would start."""
    rng = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), latents(), valid_frames(13, 13, 13)))["params"]
    return jax.tree.map(lambda x: jnp.array(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


class Passing(nn.Module):
    """In place of a layer: hands on what it is given, and a bit more."""

    more: float = 0.0

    def __call__(self, x, valid, dtype):
        return x + jnp.array(self.more, dtype)


def test_what_layers_add_is_summed_in_float32_also_under_bfloat16():
    """Eight times 1/512 to numbers near 2: in bfloat16 each by itself would be rounded away."""
    position = CarriedPositionalConv(4, 2)  # adds nothing
    network = ContextNetwork(8, Passing(1 / 512), Identity, Identity, position, dropout=0.0, layer_drop=0.0)
    twos = jnp.full(latents().shape, 2, jnp.bfloat16)
    found = network.apply({"params": random_params(network)}, twos, valid_frames(13, 13, 13))
    assert found.context.dtype == jnp.bfloat16 and (found.context == 2 + 8 / 512).all()
    assert found.hidden.dtype == jnp.float32 and (found.hidden[1] == 2 + 1 / 512).all()


@pytest.mark.parametrize("norm", [LayerNorm, Identity])
def test_dropout_of_the_network_acts_on_what_the_first_layer_gets(norm):
    """At a rate of a half every value is 0 or twice what it is without a key."""
    network = ContextNetwork(1, Passing(), norm, Identity, POSITION, dropout=0.5, layer_drop=0.0)
    variables = {"params": random_params(network)}

    def run(rngs):
        return np.array(network.apply(variables, latents(), valid_frames(13, 13, 13), rngs=rngs).context)

    plain, one, other = run({}), *(run({"dropout": jax.random.key(seed)}) for seed in (1, 2))
    for dropped in (one, other):
        assert (dropped == 0).mean() == pytest.approx(0.5, abs=0.1)
        np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, 2 * plain), rtol=1e-5)
    assert (one != other).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", [PostNormLayer, PreNormLayer])
@pytest.mark.parametrize(
    ("setting", "silent", "before", "after"),
    [
        ("attention_dropout", "feed_forward", ("attention", "value"), ("attention",)),
        ("dropout", "feed_forward", ("attention",), ()),
        ("activation_dropout", "attention", ("feed_forward", "up"), ("feed_forward", "down")),
        ("dropout", "attention", ("feed_forward",), ()),
    ],
)
def test_each_dropout_of_a_layer_acts_in_its_place(kind, setting, silent, before, after):
    """It alone is on, and of the layer's branches one gives zeros: so each residual dropout is seen by itself.

    What two keys give is equal in the module `before` it and differs in the one `after`; () is the layer itself.
    """
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    layer = kind(4, 24, **rates | {setting: 0.5})
    params = random_params(layer)
    params = {"params": params | {silent: jax.tree.map(jnp.zeros_like, params[silent])}}

    @jax.jit
    def outputs(key):
        rngs = {"dropout": key}
        state = layer.apply(params, latents(), valid_frames(13, 13, 13), rngs=rngs, capture_intermediates=True)[1]
        return tuple(functools.reduce(dict.get, path, state["intermediates"])["__call__"] for path in (before, after))

    (kept, dropped), (same, other) = outputs(jax.random.key(1)), outputs(jax.random.key(2))
    np.testing.assert_array_equal(kept, same)
    assert (np.array(dropped) != np.array(other)).mean() > 0.4


def test_an_adapter_is_a_bottleneck_with_a_relu_on_what_layer_norm_leaves():
    adapter = AttentionAdapter(dim=5)
    x = 3 * latents() + 1
    shapes = nn.unbox(jax.eval_shape(lambda: adapter.init(jax.random.key(0), x, x.dtype)))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda shape: rng.normal(size=shape.shape).astype(np.float32), shapes)
    rows = np.float64(x)
    normed = (rows - rows.mean(axis=-1, keepdims=True)) / np.sqrt(rows.var(axis=-1, keepdims=True) + 1e-5)
    normed = normed * params["norm"]["scale"] + params["norm"]["bias"]
    hidden = np.maximum(normed @ params["down"]["kernel"] + params["down"]["bias"], 0)
    expected = hidden @ params["up"]["kernel"] + params["up"]["bias"]
    np.testing.assert_allclose(adapter.apply({"params": params}, x, x.dtype), expected, atol=1e-4)


def test_an_adapter_adds_to_the_output_of_a_pre_norm_layer_that_is_otherwise_the_same():
    layer, plain = AdaptedPreNormLayer(4, 24, adapter_dim=5), PreNormLayer(4, 24)
    params = random_params(layer)
    adapter = params["adapter"]
    assert {key: value["kernel"].shape for key, value in adapter.items() if key != "norm"} == {
        "down": (EMBED, 5),
        "up": (5, EMBED),
    }
    arguments = latents(), valid_frames(13, 9, 2)
    without = plain.apply({"params": {key: params[key] for key in params if key != "adapter"}}, *arguments)
    expected = without + AttentionAdapter(5).apply({"params": adapter}, without, without.dtype)
    np.testing.assert_allclose(layer.apply({"params": params}, *arguments), expected, atol=1e-5)


@pytest.mark.parametrize("width", [1, 6, 7])
@pytest.mark.parametrize("block", [1, 3, 8])
@pytest.mark.parametrize("convolve", [product_of_windows, convolution_of_blocks])
def test_grouped_convolution_in_blocks_equals_that_of_xla(width, block, convolve):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, FRAMES, EMBED), (width, 4, EMBED)))
    before, after = width // 2, width - 1 - width // 2
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1,), ((before, after),), dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=EMBED // 4
    )
    np.testing.assert_allclose(conv_in_blocks(x, kernel, block, convolve), expected, atol=1e-5)
    np.testing.assert_allclose(grouped_conv(x, kernel), expected, atol=1e-5)


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


@pytest.mark.parametrize(
    "settings, message",
    [({"num_layers": 0}, "num_layers=0: give at least 1"), ({"layer_drop": 1.0}, "layer_drop of 1.0")],
)
def test_a_network_without_layers_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ContextNetwork(**settings)


@pytest.mark.parametrize("part", [PositionalConv(width=4, num_groups=3), SelfAttention(num_heads=3, dropout=0.0)])
def test_heads_and_groups_that_cannot_share_the_width_are_refused(part):
    arguments = (jnp.ones((1, 5, 8)), jnp.ones((1, 5), bool))[: 1 if isinstance(part, PositionalConv) else 2]
    with pytest.raises(ValueError, match=r"3 (heads|groups) can't share 8"):
        part.init(jax.random.key(0), *arguments)
