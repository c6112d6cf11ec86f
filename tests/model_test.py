import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.context_network import ContextNetwork, Contextualised, PositionalConv, PostNormLayer, PreNormLayer
from w2v2_jax.feature_encoder import FeatureEncoder, LayerNormConv
from w2v2_jax.layers import Identity, LayerNorm
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2
from w2v2_jax.presets import base, large, large_lv60, tiny
from w2v2_jax.quantizer import GumbelQuantizer
from w2v2_jax.tasks import Pretraining

pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYERS = ((8, 10, 5), (8, 3, 2), (12, 2, 2))
EMBED, SAMPLES = 16, 403
LENGTHS = np.array([403, 287, 120])
POSITION = PositionalConv(width=4, num_groups=2)
POST_NORM = Wav2Vec2(
    FeatureEncoder(LAYERS), ContextNetwork(2, PostNormLayer(2, 24), position=POSITION), EMBED, input_dropout=0.1
)
PRE_NORM = Wav2Vec2(
    FeatureEncoder(LAYERS, LayerNormConv, LayerNormConv),
    ContextNetwork(2, PreNormLayer(2, 24), Identity, LayerNorm, POSITION),
    EMBED,
)
FRAMES = POST_NORM.num_frames(SAMPLES)
NOTHING, NO_CHANNEL = np.zeros((3, FRAMES), bool), np.zeros((3, EMBED), bool)


@pytest.fixture(scope="module", params=[POST_NORM, PRE_NORM], ids=["post-norm", "pre-norm"])
def model(request):
    return request.param


def waveforms(seed=0, padding=0.0):
    noise = np.random.default_rng(seed).normal(size=(3, SAMPLES))
    return np.where(np.arange(SAMPLES) < LENGTHS[:, None], noise, padding).astype(np.float32)


@functools.cache
def params_of(model):
    return {"params": drawn(model, NOTHING, NO_CHANNEL)}


def drawn(model, *arguments):
    """Parameters drawn by numpy, which needs no compilation; not as the model would start."""
    rng = np.random.default_rng(0)
    arrays = map(jnp.array, (waveforms(), LENGTHS, *arguments))
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *arrays))["params"]
    return jax.tree.map(lambda x: jnp.array(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


@functools.cache
def compiled(model):
    return jax.jit(model.apply)


def encode(model, waveform, lengths=LENGTHS, masked=NOTHING, channels=NO_CHANNEL, **rngs):
    return compiled(model)(params_of(model), *map(jnp.array, (waveform, lengths, masked, channels)), rngs=rngs)


@pytest.mark.parametrize(
    ("preset", "parameters"), [(base, 95_044_608), (large, 317_380_864), (large_lv60, 317_390_592)]
)
def test_presets_have_as_many_parameters_as_the_published_models(preset, parameters):
    params = jax.eval_shape(Pretraining(preset()).init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters


def test_tiny_has_the_architecture_of_base():
    def paths(preset):
        params = nn.unbox(jax.eval_shape(Pretraining(preset()).init, jax.random.key(0)))
        return [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]

    assert paths(tiny) == paths(base)


def test_a_clip_in_a_padded_batch_equals_the_clip_alone_even_if_the_padding_is_nan(model):
    together = encode(model, waveforms(padding=np.nan))
    for row in (1, 2):
        frames = model.num_frames(int(LENGTHS[row]))
        arrays = waveforms()[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1]
        alone = encode(model, *arrays, NOTHING[:1, :frames], NO_CHANNEL[:1])
        assert together.valid[row].sum() == frames == alone.context.shape[1]
        for ours, expected in zip(together[:3], alone[:3], strict=True):
            np.testing.assert_allclose(ours[row, :frames], expected[0], atol=2e-5)


def test_gradients_are_finite_with_nan_in_the_padding_and_a_row_without_audio(model):
    arrays = jnp.array(waveforms(padding=np.nan)), jnp.array([403, 287, 0]), jnp.array(NOTHING), jnp.array(NO_CHANNEL)

    def loss(params):
        encoded = model.apply(params, *arrays)
        return jnp.where(encoded.valid[:, :, None], encoded.context, 0).sum()

    gradients = jax.jit(jax.grad(loss))(params_of(model))
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_context_network_sees_nothing_of_masked_frames():
    """With every frame masked the context is the same for any audio of a length; targets are not."""
    everything = np.ones_like(NOTHING)
    one, other = (encode(POST_NORM, waveforms(seed), masked=everything) for seed in (1, 2))
    np.testing.assert_array_equal(one.context, other.context)
    assert (one.features != other.features).any()


def test_masked_channels_are_zero_before_the_context_network():
    every_channel = np.ones_like(NO_CHANNEL)
    one, other = (encode(POST_NORM, waveforms(seed), channels=every_channel) for seed in (1, 2))
    np.testing.assert_array_equal(one.context, other.context)


def test_channel_masks_act_on_the_mask_embedding_too():
    """As in fairseq, where time masks come first."""
    everything = np.ones_like(NOTHING)
    plain, zeroed = (encode(POST_NORM, waveforms(), masked=everything, channels=c) for c in (NO_CHANNEL, ~NO_CHANNEL))
    assert (plain.context != zeroed.context).any()


def test_mask_embedding_starts_uniform_from_0_to_1_and_the_projection_as_in_torch():
    wide = Wav2Vec2(FeatureEncoder(LAYERS), ContextNetwork(1, PostNormLayer(2, 8), position=POSITION), 512)
    arguments = jnp.zeros((1, 60)), jnp.array([60]), jnp.zeros((1, 2), bool), jnp.zeros((1, 512), bool)
    params = nn.unbox(jax.jit(wide.init)(jax.random.key(0), *arguments))["params"]
    embedding, kernel = params["mask_embedding"], params["projection"]["kernel"]
    assert 0.9 / math.sqrt(12) < jnp.abs(kernel).max() <= 1 / math.sqrt(12)
    assert embedding.mean() == pytest.approx(0.5, abs=0.05)
    assert embedding.max() > 0.98
    assert embedding.min() >= 0


def test_without_keys_the_network_is_deterministic_and_with_a_dropout_key_it_is_not():
    plain = encode(POST_NORM, waveforms()).context
    dropped, again = (encode(POST_NORM, waveforms(), dropout=jax.random.key(1)).context for _ in range(2))
    np.testing.assert_array_equal(encode(POST_NORM, waveforms()).context, plain)
    np.testing.assert_array_equal(again, dropped)
    assert (dropped != plain).mean() > 0.9


class Passing(nn.Module):
    """In place of the context network: hands on what it is given."""

    def __call__(self, x, valid):
        return Contextualised(x, x[None])


PASSING = POST_NORM.clone(context_network=Passing(), input_dropout=0.0)


def with_two_keys(model, params, *arguments):
    """What a model gives without a dropout key, with one, and with another."""
    arrays = tuple(map(jnp.array, (waveforms(), LENGTHS, *arguments)))
    keys = ({}, {"dropout": jax.random.key(1)}, {"dropout": jax.random.key(2)})
    return tuple(jax.tree.map(np.array, compiled(model)({"params": params}, *arrays, rngs=rngs)) for rngs in keys)


def assert_half_dropped(plain, *dropped):
    """Each by itself: about half of the values are 0 and the others twice what they are without dropout."""
    for values in dropped:
        assert (values == 0).mean() == pytest.approx(0.5, abs=0.1)
        np.testing.assert_allclose(values, np.where(values == 0, 0, 2 * plain), rtol=1e-4, atol=1e-5)
    assert (dropped[0] != dropped[1]).mean() == pytest.approx(0.5, abs=0.1)


def test_input_dropout_acts_on_what_the_context_network_gets_but_not_on_the_mask_embedding():
    model, masked = PASSING.clone(input_dropout=0.5), np.arange(FRAMES) % 3 == 0
    params = drawn(model, NOTHING, NO_CHANNEL)
    outputs = with_two_keys(model, params, np.tile(masked, (3, 1)), NO_CHANNEL)
    assert_half_dropped(*(output.context[:, ~masked] for output in outputs))
    for output in outputs:
        np.testing.assert_array_equal(output.features, outputs[0].features)
        assert (output.context[:, masked] == np.array(params["mask_embedding"])).all()


def test_feature_dropout_acts_on_what_the_quantizer_gets_and_not_on_what_the_context_network_gets():
    """Each of 12 codebooks has two entries, with logits of one feature and of 0: log(p / q) is that feature."""
    model = PretrainingModel(PASSING, GumbelQuantizer(12, num_groups=12, num_entries=2), feature_dropout=0.5)
    every_frame, noise = np.tile(np.arange(FRAMES), (3, 1)), np.zeros((3, FRAMES, 12, 2), np.float32)
    params = drawn(model, NOTHING, every_frame, noise, 1.0)
    params["quantizer"]["logits"] = {
        "kernel": jnp.stack([jnp.eye(12), jnp.zeros((12, 12))], axis=-1),
        "bias": jnp.zeros((12, 2)),
    }
    outputs = with_two_keys(model, params, NOTHING, every_frame, noise, 1.0)
    assert_half_dropped(*(np.log(p[..., 0] / p[..., 1]) for p in (output.quantizer.probs for output in outputs)))
    for output in outputs:
        np.testing.assert_array_equal(output.latents, outputs[0].latents)
        np.testing.assert_array_equal(output.context, outputs[0].context)


def test_output_dropout_acts_on_what_the_ctc_head_gets():
    """A head that is the identity shows its input."""
    model = CTCModel(PASSING, num_labels=EMBED, output_dropout=0.5)
    params = drawn(model, NOTHING, NO_CHANNEL) | {"head": {"kernel": jnp.eye(EMBED), "bias": jnp.zeros(EMBED)}}
    logits = with_two_keys(model, params, NOTHING, NO_CHANNEL)
    (encoded, *_) = with_two_keys(PASSING, params["encoder"], NOTHING, NO_CHANNEL)
    np.testing.assert_allclose(logits[0], encoded.context, rtol=1e-5)
    assert_half_dropped(*logits)


def test_bfloat16_stays_close_to_float32_and_parameters_stay_in_float32(model):
    half = model.clone(dtype="bfloat16")
    arguments = map(jnp.array, (waveforms(), LENGTHS, NOTHING, NO_CHANNEL))
    params = jax.eval_shape(half.init, jax.random.key(0), *arguments)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    context = encode(half, waveforms()).context
    assert context.dtype == jnp.bfloat16
    exact = np.array(encode(model, waveforms()).context)
    difference = np.array(context, np.float32) - exact
    assert np.linalg.norm(difference) < 0.01 * np.linalg.norm(exact)


def test_ctc_logits_are_float32_also_under_bfloat16():
    model = CTCModel(POST_NORM.clone(dtype="bfloat16"), num_labels=5)
    arguments = map(jnp.array, (waveforms(), LENGTHS, NOTHING, NO_CHANNEL))
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), *arguments)
    assert (logits.shape, logits.dtype) == ((3, FRAMES, 5), jnp.float32)


def test_receptive_field_is_the_shortest_clip_with_a_frame():
    assert base().encoder.receptive_field == 400
    assert base().encoder.num_frames(400) == 1
    assert base().encoder.num_frames(399) == 0


def test_a_batch_shorter_than_the_receptive_field_is_refused():
    with pytest.raises(ValueError, match="waveforms of 29 samples are shorter than the receptive field of 30 samples"):
        encode(POST_NORM, waveforms()[:, :29], masked=NOTHING[:, :0])
