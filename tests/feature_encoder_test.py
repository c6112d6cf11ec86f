import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.batches import AudioBatch
from w2v2_jax.feature_encoder import FairseqGroupNormConv, FeatureEncoder, GroupNormConv, LayerNormConv, unfold
from w2v2_jax.frames import num_frames
from w2v2_jax.layers import gelu

pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYERS = ((8, 10, 5), (8, 3, 2), (12, 2, 2))
SAMPLES = 603
LENGTHS = np.array([603, 411, 96, 1])


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("width, stride", [(10, 5), (3, 2), (2, 2), (1, 1), (5, 1), (4, 3), (2, 3)])
@pytest.mark.parametrize("samples", [10, 11, 57])
def test_unfold_lists_the_samples_of_each_frame(width, stride, samples):
    x = np.arange(2.0 * samples, dtype=np.float32).reshape(2, samples)
    expected = np.lib.stride_tricks.sliding_window_view(x, width, axis=1)[:, ::stride].swapaxes(1, 2)
    np.testing.assert_array_equal(unfold(jnp.array(x), width, stride), expected)


def group_norm_by_the_book(x, kernel, scale, bias):
    """Convolution of one clip, each channel normalised over time, before the GELU; in float64."""
    frames = np.lib.stride_tricks.sliding_window_view(np.float64(x), kernel.shape[0])[::5]
    y = frames @ np.float64(kernel[:, 0])
    return (y - y.mean(axis=0)) / np.sqrt(y.var(axis=0) + 1e-5) * scale + bias


@pytest.mark.parametrize("dtype, rounding", [("float32", 0), ("bfloat16", 2**-8)])
@pytest.mark.parametrize("offset, loudness", [(0.0, 1.0), (30.0, 1.0), (0.0, 1e-3)])
def test_group_norm_folded_into_the_kernel_equals_the_norm_after_the_convolution(offset, loudness, dtype, rounding):
    """In bfloat16 too, where only what comes out is rounded."""
    x = loudness * noise(0, 1, 500, 1) + offset
    params = {"kernel": noise(1, 10, 1, 6), "norm": {"scale": noise(2, 6), "bias": noise(3, 6)}}
    clips = AudioBatch(jnp.array(x[..., 0]), jnp.array([500]))
    arguments = jnp.array(x), clips, jnp.dtype(dtype)
    y = GroupNormConv(6, 10, 5).apply({"params": jax.tree.map(jnp.array, params)}, *arguments)
    assert y.dtype == dtype
    expected = group_norm_by_the_book(x[0, :, 0], params["kernel"], **params["norm"])
    exact = gelu(jnp.array(expected, jnp.float32))
    np.testing.assert_allclose(y[0].astype(jnp.float32), exact, atol=2e-4, rtol=rounding)


ENCODERS = {
    "group norm": FeatureEncoder(LAYERS),
    "layer norm": FeatureEncoder(LAYERS, LayerNormConv, LayerNormConv),
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request):
    return ENCODERS[request.param]


def outputs(encoder, waveform, lengths):
    y, _ = jax.jit(encoder.init_with_output)(jax.random.key(0), jnp.array(waveform), jnp.array(lengths))
    return np.array(y)


def test_a_clip_in_a_padded_batch_equals_the_clip_alone(encoder):
    waveform = np.where(np.arange(SAMPLES) < LENGTHS[:, None], noise(0, 4, SAMPLES), 0).astype(np.float32)
    together = outputs(encoder, waveform, LENGTHS)
    for row in (1, 2):
        alone = outputs(encoder, waveform[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1])
        np.testing.assert_allclose(together[row, : alone.shape[1]], alone[0], atol=1e-5)


def test_fairseqs_group_norm_lets_padding_change_a_clip():
    encoder = FeatureEncoder(LAYERS, FairseqGroupNormConv)
    waveform = np.where(np.arange(SAMPLES) < 411, noise(0, 1, SAMPLES), 0).astype(np.float32)
    alone = outputs(encoder, waveform[:, :411], [411])
    assert np.abs(outputs(encoder, waveform, [411])[0, : alone.shape[1]] - alone[0]).max() > 0.01


@pytest.mark.parametrize("num_parts", [2, 3, 8])
@pytest.mark.parametrize("samples", [96, 411, 500, 603])
def test_clips_that_are_worked_on_in_parts_give_what_whole_ones_give(encoder, num_parts, samples):
    waveform, lengths = noise(0, 2, samples), np.array([samples, samples // 2])
    whole = outputs(encoder.clone(num_parts=1), waveform, lengths)
    np.testing.assert_allclose(outputs(encoder.clone(num_parts=num_parts), waveform, lengths), whole, atol=1e-6)


def test_output_has_a_row_for_every_frame(encoder):
    for samples in (59, 60, 99, 100):
        x = jax.ShapeDtypeStruct((1, samples), jnp.float32)
        y, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), x, jnp.array([samples]))
        assert y.shape == (1, num_frames(samples, LAYERS), 12)


def test_silence_and_clips_without_a_frame_give_finite_outputs_and_gradients(encoder):
    waveform, lengths = jnp.zeros((2, SAMPLES)), jnp.array([SAMPLES, 0])
    params = jax.jit(encoder.init)(jax.random.key(0), waveform, lengths)
    y, gradients = jax.jit(jax.value_and_grad(lambda p: encoder.apply(p, waveform, lengths).sum()))(params)
    assert jnp.isfinite(y)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_kernels_start_with_variance_2_over_the_inputs():
    layers = ((64, 10, 5), (64, 3, 2))
    encoder = FeatureEncoder(layers, LayerNormConv, LayerNormConv)
    params = nn.unbox(jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 100)), jnp.array([100])))["params"]
    for block, fan_in in (("block_0", 10), ("block_1", 192)):
        assert params[block]["kernel"].std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
        assert jnp.abs(params[block]["bias"]).max() <= 1 / math.sqrt(fan_in)
