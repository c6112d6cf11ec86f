"""Heads next to those of transformers on PyTorch, in float32 with random weights, and on their own."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from w2v2_jax.context_network import (  # noqa: E402
    AdaptedPreNormLayer,
    ContextNetwork,
    PositionalConv,
    PostNormLayer,
    PreNormLayer,
)
from w2v2_jax.ctc import ctc_loss  # noqa: E402
from w2v2_jax.feature_encoder import FeatureEncoder, GroupNormConv, LayerNormConv, PlainConv  # noqa: E402
from w2v2_jax.heads import (  # noqa: E402
    FrameClassifier,
    LastContext,
    SequenceClassifier,
    TDNNLayer,
    WeightedLayers,
    XVectorModel,
    frame_deviation,
    frame_mean,
)
from w2v2_jax.layers import Identity, LayerNorm  # noqa: E402
from w2v2_jax.losses import am_softmax_loss, cross_entropy  # noqa: E402
from w2v2_jax.model import CTCModel, Encoded, Wav2Vec2  # noqa: E402
from w2v2_jax.sharding import RULES, make_mesh, param_shardings  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONV_LAYERS = ((16, 10, 5), (16, 3, 2), (24, 2, 2))
EMBED, HEADS, FFN, LAYERS, ADAPTER = 48, 3, 80, 2, 16
POSITION = PositionalConv(width=16, num_groups=4)
CLASSES, PROJECTION, EMBEDDING = 7, 20, 28
TDNN = ((20, 5, 1), (24, 3, 2), (24, 3, 3), (28, 1, 1), (40, 1, 1))
TDNN_SPAN = 15

SAMPLES = 1243
UNPADDED = np.full(4, SAMPLES)
PADDED = np.array([SAMPLES, 901, 0, 640])
"""The third row fills the batch up."""

LAYER = "wav2vec2.encoder.layers.{}"
MODULES = {
    "encoder": "wav2vec2",
    "encoder/feature_norm": "wav2vec2.feature_projection.layer_norm",
    "encoder/projection": "wav2vec2.feature_projection.projection",
    "encoder/context_network/position": "wav2vec2.encoder.pos_conv_embed.conv",
    "encoder/context_network/first_norm": "wav2vec2.encoder.layer_norm",
    "encoder/context_network/last_norm": "wav2vec2.encoder.layer_norm",
    "encoder/context_network/layer/attention/query": f"{LAYER}.attention.q_proj",
    "encoder/context_network/layer/attention/key": f"{LAYER}.attention.k_proj",
    "encoder/context_network/layer/attention/value": f"{LAYER}.attention.v_proj",
    "encoder/context_network/layer/attention/out": f"{LAYER}.attention.out_proj",
    "encoder/context_network/layer/attention_norm": f"{LAYER}.layer_norm",
    "encoder/context_network/layer/feed_forward/up": f"{LAYER}.feed_forward.intermediate_dense",
    "encoder/context_network/layer/feed_forward/down": f"{LAYER}.feed_forward.output_dense",
    "encoder/context_network/layer/output_norm": f"{LAYER}.final_layer_norm",
    "encoder/context_network/layer/adapter/norm": f"{LAYER}.adapter_layer.norm",
    "encoder/context_network/layer/adapter/down": f"{LAYER}.adapter_layer.linear_1",
    "encoder/context_network/layer/adapter/up": f"{LAYER}.adapter_layer.linear_2",
    "head": "lm_head",
    "projector": "projector",
    "classifier": "classifier",
    "embedding": "feature_extractor",
    **{f"tdnn_{i}": f"tdnn.{i}.kernel" for i in range(len(TDNN))},
    **{f"encoder/feature_encoder/block_{i}": f"wav2vec2.feature_extractor.conv_layers.{i}.conv" for i in range(3)},
    **{
        f"encoder/feature_encoder/block_{i}/norm": f"wav2vec2.feature_extractor.conv_layers.{i}.layer_norm"
        for i in range(3)
    },
}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "direction": "parametrizations.weight.original1",
    "magnitude": "parametrizations.weight.original0",
    "mask_embedding": "masked_spec_embed",
}
WHOLE = {"speakers": "objective.weight", "representation/weights": "layer_weights"}
"""Parameters that both libraries lay out alike."""


class Variant(NamedTuple):
    """One network in both libraries and what its heads read."""

    first: Callable
    rest: Callable
    layer: nn.Module
    norms: tuple[Callable, Callable]
    representation: Callable
    config: dict

    @property
    def encoder(self):
        context = ContextNetwork(LAYERS, self.layer, *self.norms, POSITION)
        return Wav2Vec2(FeatureEncoder(CONV_LAYERS, self.first, self.rest), context, EMBED, feature_gradient_scale=1.0)


LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
MIXED = {"use_weighted_layer_sum": True}
PRE_NORM = (Identity, LayerNorm)
VARIANTS = {
    "base": Variant(GroupNormConv, PlainConv, PostNormLayer(HEADS, FFN), (LayerNorm, Identity), LastContext, {}),
    "base_mixed": Variant(
        GroupNormConv, PlainConv, PostNormLayer(HEADS, FFN), (LayerNorm, Identity), WeightedLayers, MIXED
    ),
    "large_lv60_mixed": Variant(
        LayerNormConv, LayerNormConv, PreNormLayer(HEADS, FFN), PRE_NORM, WeightedLayers, LAYER_NORM | MIXED
    ),
    "mms": Variant(
        LayerNormConv,
        LayerNormConv,
        AdaptedPreNormLayer(HEADS, FFN, adapter_dim=ADAPTER),
        PRE_NORM,
        LastContext,
        LAYER_NORM | {"adapter_attn_dim": ADAPTER},
    ),
}


def their_config(variant):
    dims, kernels, strides = zip(*CONV_LAYERS, strict=True)
    tdnn_dims, widths, dilations = zip(*TDNN, strict=True)
    rates = (
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
        "final_dropout",
        "layerdrop",
    )
    return transformers.Wav2Vec2Config(
        conv_dim=dims,
        conv_kernel=kernels,
        conv_stride=strides,
        hidden_size=EMBED,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_conv_pos_embeddings=POSITION.width,
        num_conv_pos_embedding_groups=POSITION.num_groups,
        num_labels=CLASSES,
        vocab_size=CLASSES,
        classifier_proj_size=PROJECTION,
        tdnn_dim=tdnn_dims,
        tdnn_kernel=widths,
        tdnn_dilation=dilations,
        xvector_output_dim=EMBEDDING,
        ctc_loss_reduction="sum",
        **dict.fromkeys(rates, 0.0),
        **variant.config,
    )


class Head(NamedTuple):
    """One head in both libraries.

    `outputs` names theirs, in our order; `losses` gives ours [batch ...] from what the model gave and the labels.
    """

    make: Callable
    theirs: type
    outputs: tuple[str, ...]
    losses: Callable


def x_vectors(variant):
    return XVectorModel(variant.encoder, CLASSES, TDNN, EMBEDDING, variant.representation)


HEADS_OF = {
    "sequence": Head(
        lambda v: SequenceClassifier(v.encoder, CLASSES, PROJECTION, v.representation),
        transformers.Wav2Vec2ForSequenceClassification,
        ("logits",),
        lambda logits, labels: cross_entropy(logits, labels[:, 0]),
    ),
    "frame": Head(
        lambda v: FrameClassifier(v.encoder, CLASSES, v.representation),
        transformers.Wav2Vec2ForAudioFrameClassification,
        ("logits",),
        cross_entropy,
    ),
    "xvector": Head(
        x_vectors,
        transformers.Wav2Vec2ForXVector,
        ("embeddings", "logits"),
        lambda vectors, labels: am_softmax_loss(vectors.similarities, labels[:, 0]),
    ),
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module", params=HEADS_OF)
def head(request):
    return request.param


@functools.cache
def their_model(kind, variant):
    """Weights in general position: norms are not the identity, biases not zero, attention not flat."""
    torch.manual_seed(0)
    model = kind(their_config(VARIANTS[variant])).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def as_ours(tensors, model):
    """Their weights or gradients by name as the tree of ours; torch lists outputs first, we list them last."""

    def convert(tensor, shape):
        array = tensor.detach().numpy()
        return (array if array.shape[0] == 1 else array.T).reshape(shape)

    def leaf(path, like):
        path = jax.tree_util.keystr(path, simple=True, separator="/")
        if path in WHOLE:
            return tensors[WHOLE[path]].detach().numpy()
        module, _, kind = path.rpartition("/")
        name = f"{MODULES[module]}.{LEAVES[kind]}"
        if "{}" not in name:
            return convert(tensors[name], like.shape)
        return np.stack([convert(tensors[name.format(i)], like.shape[1:]) for i in range(LAYERS)])

    return jax.tree_util.tree_map_with_path(leaf, shapes_of(model))


def shapes_of(model):
    return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *arguments(model, UNPADDED)))["params"]


def arguments(model, lengths, padding=0.0):
    frames = model.encoder.num_frames(SAMPLES)
    waveform = np.where(np.arange(SAMPLES) < lengths[:, None], waveforms(), padding)
    nothing = jnp.zeros((len(lengths), frames), bool), jnp.zeros((len(lengths), EMBED), bool)
    return jnp.array(waveform, jnp.float32), jnp.array(lengths), *nothing


def waveforms():
    """Noise whose loudness drifts, so that no two frames and no two clips have the same statistics."""
    drift = 1 + np.sin(np.arange(SAMPLES) / 300 + np.arange(4)[:, None])
    return (np.random.default_rng(1).normal(size=(4, SAMPLES)) * drift).astype(np.float32)


def labels(model):
    """One for each frame; heads for whole clips take the first."""
    return np.random.default_rng(2).integers(0, CLASSES, (4, model.encoder.num_frames(SAMPLES)))


def their_labels(head, labels):
    labels = torch.tensor(labels)
    return torch.nn.functional.one_hot(labels, CLASSES) if head == "frame" else labels[:, 0]


@functools.cache
def value_and_gradients(head, variant):
    """The sum of a head's losses over the clips or frames with weight, its outputs, and the gradients."""
    model, losses = HEADS_OF[head].make(VARIANTS[variant]), HEADS_OF[head].losses

    def objective(params, arguments, labels, weight):
        output = model.apply({"params": params}, *arguments)
        per_row = losses(output, labels)
        return (per_row * (weight[:, 0] if per_row.ndim == 1 else weight)).sum(), output

    return model, jax.jit(jax.value_and_grad(objective, has_aux=True))


def relative_error(ours, expected, floor=0.0):
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / max(np.abs(expected).max(), floor)


def assert_same_gradients(ours, reference, model):
    """Every tensor within 1e-4 of its largest entry; key biases, whose true gradient is 0, next to the others'.

    What nothing depends on has no gradient in torch, and zeros here.
    """
    zeros_for = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in reference.named_parameters()}
    expected = as_ours(zeros_for, model)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(expected))
    errors = jax.tree.map(lambda a, b: relative_error(a, b, floor=1e-2 * largest), ours, expected)
    worst = sorted(((e, jax.tree_util.keystr(path)) for path, e in jax.tree_util.tree_leaves_with_path(errors)))[-3:]
    assert worst[-1][0] < 1e-4, worst


def outputs_of(output):
    return output[:2] if isinstance(output, tuple) else (output,)


def test_outputs_loss_and_all_gradients_equal_transformers(head, variant):
    model, run = value_and_gradients(head, variant)
    reference = their_model(HEADS_OF[head].theirs, variant)
    reference.zero_grad()
    expected = reference(torch.tensor(waveforms()), labels=their_labels(head, labels(model)))
    expected.loss.backward()

    weight = np.ones(labels(model).shape) / (labels(model).size if head == "frame" else 4)
    params = as_ours(dict(reference.named_parameters()), model)
    (loss, output), gradients = run(params, arguments(model, UNPADDED), labels(model), weight)
    for ours, name in zip(outputs_of(output), HEADS_OF[head].outputs, strict=True):
        assert relative_error(ours, expected[name].detach()) < 2e-5
    assert float(loss) == pytest.approx(expected.loss.item(), rel=2e-5)
    assert_same_gradients(gradients, reference, model)


def test_clips_padded_with_nans_equal_transformers_on_each_clip_alone(head, variant):
    """A batch with a row that only fills it up: outputs, summed losses and all gradients."""
    model, run = value_and_gradients(head, variant)
    reference = their_model(HEADS_OF[head].theirs, variant)
    reference.zero_grad()
    num_frames = np.array(model.encoder.num_valid_frames(jnp.array(PADDED)))
    expected, total = {}, 0.0
    for row in np.flatnonzero(PADDED):
        clip, target = waveforms()[row : row + 1, : PADDED[row]], labels(model)[row : row + 1, : num_frames[row]]
        expected[row] = reference(torch.tensor(clip), labels=their_labels(head, target))
        loss = expected[row].loss * (num_frames[row] if head == "frame" else 1)
        loss.backward()
        total += loss.item()

    weight = np.arange(labels(model).shape[1]) < num_frames[:, None]
    params = as_ours(dict(reference.named_parameters()), model)
    (loss, output), gradients = run(params, arguments(model, PADDED, np.nan), labels(model), 1.0 * weight)
    for ours, name in zip(outputs_of(output), HEADS_OF[head].outputs, strict=True):
        assert jnp.isfinite(ours).all()
        for row, alone in expected.items():
            theirs = alone[name][0].detach()
            assert relative_error(ours[row, : len(theirs)], theirs) < 2e-5
    assert float(loss) == pytest.approx(total, rel=2e-5)
    assert_same_gradients(gradients, reference, model)


@pytest.mark.parametrize("variant", ["large_lv60_mixed", "mms"])
@pytest.mark.parametrize("head", ["sequence", "frame"])
def test_a_padded_batch_of_a_layer_norm_network_equals_transformers_on_it(head, variant):
    """Not so with group norm, nor for x-vectors, where theirs let padding play a part."""
    lengths = np.array([SAMPLES, 901, 1100, 640])
    model, run = value_and_gradients(head, variant)
    reference = their_model(HEADS_OF[head].theirs, variant)
    mask = np.arange(SAMPLES) < lengths[:, None]
    with torch.no_grad():
        expected = reference(torch.tensor(waveforms() * mask), attention_mask=torch.tensor(mask).long()).logits
    params = as_ours(dict(reference.named_parameters()), model)
    (_, logits), _ = run(params, arguments(model, lengths), labels(model), np.ones(labels(model).shape))
    num_frames = np.array(model.encoder.num_valid_frames(jnp.array(lengths)))
    for ours, theirs, frames in zip(logits, expected, num_frames, strict=True):
        part = slice(frames if head == "frame" else None)
        assert relative_error(ours[part], theirs[part]) < 2e-5


def test_recognition_with_adapters_equals_transformers():
    """Logits, CTC loss and the gradients of every parameter, the adapters' among them."""
    model = CTCModel(VARIANTS["mms"].encoder, CLASSES)
    reference = their_model(transformers.Wav2Vec2ForCTC, "mms")
    spoken = np.random.default_rng(3).integers(1, CLASSES, (4, 9))
    expected = reference(torch.tensor(waveforms()), labels=torch.tensor(spoken))
    expected.loss.backward()
    inputs = arguments(model, UNPADDED)
    num_frames = model.encoder.num_valid_frames(inputs[1])

    def objective(params):
        logits = model.apply({"params": params}, *inputs)
        return ctc_loss(logits, num_frames, jnp.array(spoken), jnp.full(4, 9)).losses.sum(), logits

    params = as_ours(dict(reference.named_parameters()), model)
    (loss, logits), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(params)
    assert relative_error(logits, expected.logits.detach()) < 2e-5
    assert float(loss) == pytest.approx(expected.loss.item(), rel=2e-5)
    assert_same_gradients(gradients, reference, model)


def test_a_clip_too_short_for_the_tdnn_has_finite_vectors_and_gradients_and_is_counted_out():
    model = x_vectors(VARIANTS["base"])
    shortest = model.receptive_field
    assert model.encoder.num_frames(shortest) == TDNN_SPAN == model.encoder.num_frames(shortest - 1) + 1
    lengths = np.array([SAMPLES, shortest, shortest - 1, 0])
    np.testing.assert_array_equal(
        model.num_valid_frames(jnp.array(lengths)), [model.encoder.num_frames(SAMPLES) - TDNN_SPAN + 1, 1, 0, 0]
    )
    reference = their_model(transformers.Wav2Vec2ForXVector, "base")
    params = as_ours(dict(reference.named_parameters()), model)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params):
        vectors = model.apply({"params": params}, *arguments(model, lengths, np.nan))
        return am_softmax_loss(vectors.similarities, jnp.arange(4)).sum(), vectors

    gradients, vectors = run(params)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((gradients, vectors)))
    for row in (2, 3):
        np.testing.assert_allclose(vectors.embeddings[row], params["embedding"]["bias"], rtol=1e-6)


def test_a_batch_too_short_for_the_tdnn_is_refused():
    model = x_vectors(VARIANTS["base"])
    samples = model.receptive_field - 1
    nothing = jnp.zeros((1, TDNN_SPAN - 1), bool), jnp.zeros((1, EMBED), bool)
    with pytest.raises(ValueError, match=f"waveforms of {samples} samples are shorter than the {samples + 1} samples"):
        model.init(jax.random.key(0), jnp.zeros((1, samples)), jnp.array([samples]), *nothing)


def test_a_tdnn_without_layers_is_refused():
    with pytest.raises(ValueError, match="give at least one"):
        XVectorModel(VARIANTS["base"].encoder, CLASSES, tdnn=())


def encoded_of(hidden):
    """Nothing but hidden states [state batch frame embed], the last of which is the context."""
    hidden = jnp.array(hidden)
    return Encoded(hidden[0], hidden[0], hidden[-1], hidden, jnp.ones(hidden.shape[1:3], bool))


def test_weighted_layers_start_as_the_mean_of_all_and_can_come_down_to_one():
    hidden = np.random.default_rng(0).normal(size=(4, 2, 5, 3)).astype(np.float32)
    start = nn.unbox(WeightedLayers().init(jax.random.key(0), encoded_of(hidden)))
    np.testing.assert_allclose(start["params"]["weights"], [0.25] * 4)
    np.testing.assert_allclose(WeightedLayers().apply(start, encoded_of(hidden)), hidden.mean(axis=0), atol=1e-6)
    third = {"params": {"weights": jnp.array([0.0, 0.0, 100.0, 0.0])}}
    np.testing.assert_allclose(WeightedLayers().apply(third, encoded_of(hidden)), hidden[2], atol=1e-6)


def test_weighted_layers_of_bfloat16_are_summed_in_float32():
    """256 + 1 is not a number of bfloat16."""
    hidden = jnp.array([256.0, 1.0], jnp.bfloat16)[:, None, None, None]
    mixed = WeightedLayers().apply({"params": {"weights": jnp.zeros(2)}}, encoded_of(hidden))
    assert mixed.item() == 128.5


@pytest.mark.parametrize("representation", [LastContext, WeightedLayers])
def test_outputs_are_float32_and_parameters_have_named_axes_also_under_bfloat16(head, representation):
    variant = VARIANTS["base"]._replace(representation=representation)
    model = HEADS_OF[head].make(variant)
    model = model.clone(encoder=variant.encoder.clone(dtype="bfloat16"))
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), *arguments(model, UNPADDED))
    assert {leaf.dtype for leaf in jax.tree.leaves((output, variables))} == {jnp.dtype(jnp.float32)}
    param_shardings(variables["params"], make_mesh(jax.devices()), RULES)


def test_tdnn_layer_is_a_sum_over_taps_as_far_apart_as_the_dilation():
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=s).astype(np.float32) for s in ((2, 11, 4), (3, 4, 5), (5,)))
    expected = np.maximum(sum(x[:, 2 * w : 2 * w + 7] @ kernel[w] for w in range(3)) + bias, 0)
    ours = TDNNLayer(5, width=3, dilation=2).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.array(x))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_statistics_are_over_valid_frames_and_ignore_nan_in_padding():
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    counts = (6, 4, 2)
    valid = np.arange(6) < np.array(counts)[:, None]
    dirty = jnp.array(np.where(valid[:, :, None], x, np.nan))
    mean, deviation = frame_mean(dirty, jnp.array(valid)), frame_deviation(dirty, jnp.array(valid))
    for row, count in enumerate(counts):
        np.testing.assert_allclose(mean[row], x[row, :count].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(deviation[row], x[row, :count].std(axis=0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_deviation_of_what_does_not_vary_is_0_with_gradient_0(count):
    valid = jnp.arange(5)[None, :] < count
    deviation, gradient = jax.value_and_grad(lambda x: frame_deviation(x, valid).sum())(jnp.full((1, 5, 2), 0.5))
    assert deviation == 0
    assert not gradient.any()
