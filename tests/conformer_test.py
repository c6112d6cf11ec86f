"""The maths of conformer layers against transformers on PyTorch, clip by clip: theirs lets padding into a clip."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as reference  # noqa: E402

from w2v2_jax.conformer import (  # noqa: E402
    CarriedPositionalConv,
    ConformerLayer,
    DepthwiseConv,
    FrozenBatchNorm,
    RelativeAttention,
    RotaryAttention,
    by_key,
    rotate,
    sinusoids,
)
from w2v2_jax.context_network import ContextNetwork, PositionalConv, SelfAttention  # noqa: E402
from w2v2_jax.description import build, describe  # noqa: E402
from w2v2_jax.layers import Identity, LayerNorm, gelu, swish  # noqa: E402
from w2v2_jax.optimizers import adam  # noqa: E402
from w2v2_jax.sharding import RULES, make_mesh, param_shardings  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

EMBED, HEADS, FFN, WIDTH, LAYERS = 24, 3, 40, 7, 2
FRAMES = 17
COUNTS = (17, 11, 2)
POSITION = CarriedPositionalConv(width=6, num_groups=4)
POSITIONS = {"relative": RelativeAttention, "rotary": RotaryAttention, "none": SelfAttention}
ACTIVATIONS = {"swish": swish, "gelu": gelu}
RATES = ("dropout", "attention_dropout", "activation_dropout", "convolution_dropout")


def layer_of(attention=RelativeAttention, activation=swish, **rates):
    return ConformerLayer(HEADS, FFN, attention, WIDTH, activation, **dict.fromkeys(RATES, 0.0) | rates)


def network_of(layer, **changes):
    network = ContextNetwork(
        LAYERS, layer, first_norm=Identity, last_norm=LayerNorm, position=POSITION, dropout=0.0, layer_drop=0.0
    )
    return network.clone(**changes)


def latents():
    return jnp.array(np.random.default_rng(0).normal(size=(len(COUNTS), FRAMES, EMBED)), jnp.float32)


def valid_frames(*counts):
    return jnp.arange(FRAMES)[None, :] < jnp.array(counts)[:, None]


def shapes_of(module):
    boxed = jax.eval_shape(module.init, jax.random.key(0), latents(), valid_frames(*COUNTS))
    return nn.unbox(boxed)["params"]


def leaves_of(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def random_params(module):
    """In general position; variances are above 0."""
    rng = np.random.default_rng(0)

    def leaf(path, like):
        draw = 0.3 * rng.normal(size=like.shape)
        return jnp.array(0.5 + draw**2 if "variance" in jax.tree_util.keystr(path) else draw, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes_of(module))


NORM = {"scale": (EMBED,), "bias": (EMBED,)}
LINEAR = {"kernel": (EMBED, HEADS, EMBED // HEADS), "bias": (HEADS, EMBED // HEADS)}
FEED_FORWARD = {
    "up": {"kernel": (EMBED, FFN), "bias": (FFN,)},
    "down": {"kernel": (FFN, EMBED), "bias": (EMBED,)},
}
ATTENTION = {
    **{name: LINEAR for name in ("query", "key", "value")},
    "out": {"kernel": (HEADS, EMBED // HEADS, EMBED), "bias": (EMBED,)},
}
RELATIVE = {"position": {"kernel": LINEAR["kernel"]}, **{f"{n}_bias": LINEAR["bias"] for n in ("content", "position")}}
SHAPES = {
    **{f"{n}_norm": NORM for n in ("first_ffn", "attention", "second_ffn", "output")},
    "first_ffn": FEED_FORWARD,
    "second_ffn": FEED_FORWARD,
    "convolution": {
        "norm": NORM,
        "up": {"kernel": (EMBED, 2 * EMBED)},
        "depthwise": {"kernel": (WIDTH, 1, EMBED)},
        "batch_norm": {**NORM, "statistics": {"mean": (EMBED,), "variance": (EMBED,), "count": ()}},
        "down": {"kernel": (EMBED, EMBED)},
    },
}


@pytest.mark.parametrize("positions", POSITIONS)
def test_parameters_of_a_layer_have_the_names_and_shapes_that_checkpoints_know(positions):
    attention = ATTENTION | (RELATIVE if positions == "relative" else {})
    shapes = jax.tree.map(jnp.shape, shapes_of(layer_of(POSITIONS[positions])))
    assert shapes == {**SHAPES, "attention": attention}


def test_every_parameter_of_the_network_is_in_float32_and_every_axis_of_it_has_a_rule():
    network = network_of(layer_of())
    boxed = jax.eval_shape(network.init, jax.random.key(0), latents(), valid_frames(*COUNTS))
    shardings = leaves_of(param_shardings(boxed, make_mesh(jax.devices()), RULES))
    specs = leaves_of(nn.get_partition_spec(boxed))
    for path, leaf in leaves_of(nn.unbox(boxed)).items():
        assert len(specs[path]) == leaf.ndim, path
        assert None not in specs[path]
        assert len(set(specs[path])) == leaf.ndim, path
        assert leaf.dtype == jnp.float32
        assert shardings[path].is_fully_replicated


def test_a_convolution_that_is_carried_has_the_parameters_of_one_that_positions_and_gives_zeros():
    conv = PositionalConv(**{name: getattr(POSITION, name) for name in ("width", "num_groups")})
    ours, theirs = (nn.unbox(each.init(jax.random.key(0), latents())) for each in (POSITION, conv))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    y = POSITION.apply(ours, latents())
    assert y.shape == latents().shape
    assert not y.any()


MODULES = {
    "position": "pos_conv_embed.conv",
    "last_norm": "layer_norm",
    "layer/first_ffn_norm": "layers.{}.ffn1_layer_norm",
    "layer/first_ffn/up": "layers.{}.ffn1.intermediate_dense",
    "layer/first_ffn/down": "layers.{}.ffn1.output_dense",
    "layer/attention_norm": "layers.{}.self_attn_layer_norm",
    "layer/attention": "layers.{}.self_attn",
    "layer/attention/query": "layers.{}.self_attn.linear_q",
    "layer/attention/key": "layers.{}.self_attn.linear_k",
    "layer/attention/value": "layers.{}.self_attn.linear_v",
    "layer/attention/out": "layers.{}.self_attn.linear_out",
    "layer/attention/position": "layers.{}.self_attn.linear_pos",
    "layer/convolution/norm": "layers.{}.conv_module.layer_norm",
    "layer/convolution/up": "layers.{}.conv_module.pointwise_conv1",
    "layer/convolution/depthwise": "layers.{}.conv_module.depthwise_conv",
    "layer/convolution/batch_norm": "layers.{}.conv_module.batch_norm",
    "layer/convolution/batch_norm/statistics": "layers.{}.conv_module.batch_norm",
    "layer/convolution/down": "layers.{}.conv_module.pointwise_conv2",
    "layer/second_ffn_norm": "layers.{}.ffn2_layer_norm",
    "layer/second_ffn/up": "layers.{}.ffn2.intermediate_dense",
    "layer/second_ffn/down": "layers.{}.ffn2.output_dense",
    "layer/output_norm": "layers.{}.final_layer_norm",
}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "content_bias": "pos_bias_u",
    "position_bias": "pos_bias_v",
    "mean": "running_mean",
    "variance": "running_var",
    "count": "num_batches_tracked",
    "direction": "parametrizations.weight.original1",
    "magnitude": "parametrizations.weight.original0",
}
AS_THEY_ARE = ("magnitude", "content_bias", "position_bias")


def as_ours(tensors, shapes):
    """Their weights or gradients by name as the tree of ours; torch lists outputs first, we list them last."""

    def leaf(path, like):
        module, _, leaf = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
        name = f"{MODULES[module]}.{LEAVES[leaf]}"
        found = [tensors[name.format(i)].detach().numpy() for i in range(LAYERS if "{}" in name else 1)]
        return np.stack([a if leaf in AS_THEY_ARE else a.T for a in found]).reshape(like.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@functools.cache
def theirs(positions, activation):
    """An encoder with weights in general position, batch norm's statistics among them."""
    rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "conformer_conv_dropout", "layerdrop")
    config = transformers.Wav2Vec2ConformerConfig(
        hidden_size=EMBED,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        hidden_act=activation,
        position_embeddings_type=positions if positions in ("relative", "rotary") else None,
        conv_depthwise_kernel_size=WIDTH,
        num_conv_pos_embeddings=POSITION.width,
        num_conv_pos_embedding_groups=POSITION.num_groups,
        attn_implementation="eager",
        **dict.fromkeys(rates, 0.0),
    )
    torch.manual_seed(0)
    encoder = reference.Wav2Vec2ConformerEncoder(config).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        for name, buffer in encoder.named_buffers():
            if "running_mean" in name:
                buffer.normal_()
            if "running_var" in name:
                buffer.uniform_(0.3, 3)
            if "num_batches" in name:
                buffer.fill_(1234)
    return encoder


def relative_error(ours, expected, floor=0.0):
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / max(np.abs(expected).max(), floor)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_clips_padded_with_nans_give_the_states_and_gradients_of_transformers_on_each_clip_alone(positions, activation):
    encoder = theirs(positions, activation)
    encoder.zero_grad()
    network = network_of(layer_of(POSITIONS[positions], ACTIVATIONS[activation]))
    shapes = shapes_of(network)
    weights = np.random.default_rng(1).normal(size=(len(COUNTS), FRAMES, EMBED)).astype(np.float32)
    states, input_gradients = [], []
    for row, count in enumerate(COUNTS):
        clip = torch.tensor(np.array(latents()[row : row + 1, :count]), requires_grad=True)
        hidden = [clip]
        hooks = [
            each.register_forward_hook(lambda *call, hidden=hidden: hidden.append(call[2])) for each in encoder.layers
        ]
        context = encoder(clip).last_hidden_state
        (context * torch.tensor(weights[row, :count])).sum().backward()
        states.append([state.detach().numpy()[0] for state in (*hidden, context)])
        input_gradients.append(clip.grad.numpy()[0])
        for hook in hooks:
            hook.remove()

    valid = valid_frames(*COUNTS)

    def objective(params, x):
        output = network.apply({"params": params}, x, valid)
        return jnp.where(valid[:, :, None], output.context * weights, 0).sum(), output

    dirty = jnp.where(valid[:, :, None], latents(), jnp.nan)
    tensors = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    run = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
    (gradients, of_input), output = run(as_ours(tensors, shapes), dirty)
    for row, count in enumerate(COUNTS):
        ours = [*output.hidden[:, row, :count], output.context[row, :count]]
        for state, expected in zip(ours, states[row], strict=True):
            assert relative_error(state, expected) < 2e-5
        assert relative_error(of_input[row, :count], input_gradients[row]) < 5e-5
        assert not of_input[row, count:].any()

    # The convolution that is carried gets no gradient, nor do statistics.
    theirs_by_name = {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in tensors.items()}
    expected = leaves_of(as_ours(theirs_by_name, shapes))
    largest = max(np.abs(g).max() for g in expected.values())
    errors = {
        path: relative_error(gradient, expected[path], floor=1e-2 * largest)
        for path, gradient in leaves_of(gradients).items()
    }
    assert max(errors.values()) < 5e-5, sorted(errors.items(), key=lambda item: item[1])[-3:]
    without = {path for path, gradient in leaves_of(gradients).items() if not gradient.any()}
    assert without == {path for path in errors if path.startswith("position/") or "/statistics/" in path}


@pytest.mark.parametrize("num_frames", [3, 1500])
def test_positions_are_those_of_transformers_however_long_the_clip(num_frames):
    """Angles grow with the clip, and with them what rounds a frequency; neither 240 nor 80 is a power of 2."""
    config = transformers.Wav2Vec2ConformerConfig(hidden_size=240, num_attention_heads=3, max_source_positions=1000)
    x = torch.tensor(np.random.default_rng(0).normal(size=(1, num_frames, 240)), dtype=torch.float32)
    expected = reference.Wav2Vec2ConformerRelPositionalEmbedding(config)(x)[0]
    np.testing.assert_allclose(sinusoids(num_frames, 240), expected, atol=2e-6)

    config.position_embeddings_type = "rotary"
    table = reference.Wav2Vec2ConformerRotaryPositionalEmbedding(config)(x)
    expected = reference.Wav2Vec2ConformerSelfAttention(config)._apply_rotary_embedding(x, table)
    rotated = rotate(jnp.array(x).reshape(1, num_frames, 3, 80)).reshape(1, num_frames, 240)
    np.testing.assert_allclose(rotated, expected, atol=1e-5)


def test_scores_by_distance_are_read_at_the_distance_of_query_and_key():
    """A score that is its own distance: query i sees key j at i - j."""
    distances = jnp.broadcast_to(jnp.arange(4.0, -5, -1), (2, 3, 5, 9))
    expected = np.arange(5)[:, None] - np.arange(5)[None, :]
    np.testing.assert_array_equal(by_key(distances), np.broadcast_to(expected, (2, 3, 5, 5)))


def test_depthwise_convolution_equals_that_of_xla():
    x = latents()
    params = nn.unbox(DepthwiseConv(WIDTH).init(jax.random.key(0), x))
    expected = jax.lax.conv_general_dilated(
        x, params["params"]["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=EMBED
    )
    np.testing.assert_allclose(DepthwiseConv(WIDTH).apply(params, x), expected, atol=1e-6)


def test_a_batch_norm_that_has_seen_nothing_passes_on_what_it_gets():
    """Its variance of 1 counts with eps: the factor is 1 / sqrt(1 + 1e-5)."""
    y, params = FrozenBatchNorm().init_with_output(jax.random.key(0), latents())
    assert nn.unbox(params)["params"]["statistics"]["count"] == 0
    np.testing.assert_allclose(y, latents() / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_statistics_stay_as_they_are_while_all_else_learns():
    layer = layer_of()
    params = random_params(layer)
    optimizer = adam(lambda n: 0.1, weight_decay=0.5)

    @jax.jit
    def update(params):
        gradients = jax.grad(lambda p: layer.apply({"params": p}, latents(), valid_frames(*COUNTS)).sum())(params)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        return jax.tree.map(jnp.add, params, updates)

    before, after = leaves_of(params), leaves_of(update(params))
    stayed = {path for path in before if np.array_equal(before[path], after[path])}
    assert stayed == {f"convolution/batch_norm/statistics/{name}" for name in ("mean", "variance", "count")}


class Passing(nn.Module):
    """In place of attention: hands on what it is given, and drops nothing."""

    num_heads: int
    dropout: float

    def __call__(self, x, valid):
        return x


@pytest.mark.parametrize(
    ("attention", "setting", "silent", "before", "after"),
    [
        (RelativeAttention, "dropout", "second_ffn", ("first_ffn",), ("attention_norm",)),
        (RelativeAttention, "dropout", "first_ffn", ("second_ffn",), ()),
        (RelativeAttention, "activation_dropout", "second_ffn", ("first_ffn", "up"), ("first_ffn", "down")),
        (RelativeAttention, "activation_dropout", "first_ffn", ("second_ffn", "up"), ("second_ffn", "down")),
        (RelativeAttention, "attention_dropout", "second_ffn", ("attention", "value"), ("attention",)),
        (RotaryAttention, "attention_dropout", "second_ffn", ("attention", "value"), ("attention",)),
        (Passing, "attention_dropout", "second_ffn", ("attention",), ("convolution", "norm")),
        (RelativeAttention, "convolution_dropout", "second_ffn", ("convolution", "down"), ("convolution",)),
    ],
)
def test_each_dropout_of_a_layer_acts_in_its_place_and_only_with_a_key(attention, setting, silent, before, after):
    """It alone is on, and one feed-forward map gives zeros: so each of the two is seen by itself.

    What two keys give is equal in the module `before` it and differs in the one `after`; () is the layer itself.
    """
    layer = layer_of(attention, **{setting: 0.5})
    params = random_params(layer)
    params = {"params": params | {silent: jax.tree.map(jnp.zeros_like, params[silent])}}

    def outputs(layer, rngs):
        state = layer.apply(params, latents(), valid_frames(17, 17, 17), rngs=rngs, capture_intermediates=True)[1]
        return tuple(functools.reduce(dict.get, path, state["intermediates"])["__call__"] for path in (before, after))

    with_key = jax.jit(lambda key: outputs(layer, {"dropout": key}))
    (kept, dropped), (same, other) = with_key(jax.random.key(1)), with_key(jax.random.key(2))
    np.testing.assert_array_equal(kept, same)
    assert (np.array(dropped) != np.array(other)).mean() > 0.4
    without_key = jax.jit(lambda: (outputs(layer, {}), outputs(layer.clone(**{setting: 0.0}), {})))
    jax.tree.map(np.testing.assert_array_equal, *without_key())


def test_layers_are_dropped_whole_and_the_others_get_finite_gradients():
    """In a run with keys for everything that is drawn."""
    network = network_of(layer_of(dropout=0.1, attention_dropout=0.1), layer_drop=0.5)
    params = random_params(network)

    @jax.jit
    def run(key):
        def loss(params):
            rngs = {"dropout": key, "layer_drop": key}
            output = network.apply({"params": params}, latents(), valid_frames(*COUNTS), rngs=rngs)
            return (output.context * latents()).sum(), output.hidden

        gradients, hidden = jax.grad(loss, has_aux=True)(params)
        return (hidden[1:] == hidden[:-1]).all(axis=(1, 2, 3)), gradients["layer"]["convolution"]["down"]["kernel"]

    seen = set()
    for seed in range(6):
        dropped, gradients = run(jax.random.key(seed))
        np.testing.assert_array_equal(~gradients.any(axis=(1, 2)), dropped)
        assert jnp.isfinite(gradients).all()
        seen |= set(np.array(dropped))
    assert seen == {True, False}


@pytest.mark.parametrize("attention", [RelativeAttention, RotaryAttention])
def test_a_layer_in_bfloat16_adds_up_in_float32_and_stays_near_the_one_in_float32(attention):
    layer = layer_of(attention)
    params = {"params": random_params(layer)}
    run = jax.jit(layer.apply, static_argnums=3)
    exact, rounded = (run(params, latents(), valid_frames(*COUNTS), dtype) for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == jnp.float32
    assert 1e-4 < relative_error(rounded, exact) < 0.01


def test_a_filler_clip_without_any_frame_stays_finite():
    layer = layer_of()
    assert jnp.isfinite(layer.apply({"params": random_params(layer)}, latents(), valid_frames(17, 5, 0))).all()


def test_a_network_is_rebuilt_from_its_description():
    network = network_of(layer_of(RotaryAttention, gelu, convolution_dropout=0.2))
    assert build(describe(network)) == network


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layer_of().clone(width=6), "width 6 has no middle frame; make the width odd"),
        (layer_of().clone(width=-1), "width -1 has no middle frame"),
        (layer_of().clone(num_heads=5), "5 heads can't share 24"),
        (layer_of(RotaryAttention).clone(num_heads=8), "3 dimensions can't be cut into pairs"),
    ],
)
def test_settings_that_cannot_be_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(layer)
