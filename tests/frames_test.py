import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.frames import PAPER_CONV_LAYERS, num_frames, num_samples, num_valid_frames, valid_mask

LENGTHS = [0, 1, 9, 399, 400, 719, 720, 16000, 16319, 32000, 250000]


def frames_by_sliding(samples):
    """Counts the positions at which each layer's window fits."""
    for _, width, stride in PAPER_CONV_LAYERS:
        samples = len(range(0, samples - width + 1, stride))
    return samples


@pytest.mark.parametrize("samples", LENGTHS)
def test_frames_are_the_positions_at_which_every_window_fits(samples):
    assert num_frames(samples, PAPER_CONV_LAYERS) == frames_by_sliding(samples)


@pytest.mark.parametrize(
    ("samples", "frames"), [(400, 1), (16000, 49), (150000, 468), (240000, 749), (250000, 781), (320000, 999)]
)
def test_paper_layers_give_a_frame_of_25_ms_every_20_ms(samples, frames):
    assert num_frames(samples, PAPER_CONV_LAYERS) == frames


def test_frames_on_the_device_equal_those_on_the_host():
    on_device = num_valid_frames(jnp.array(LENGTHS), PAPER_CONV_LAYERS)
    assert on_device.tolist() == [num_frames(samples, PAPER_CONV_LAYERS) for samples in LENGTHS]


@pytest.mark.parametrize("frames", [1, 2, 49, 781])
def test_num_samples_is_the_fewest_that_give_the_frames(frames):
    fewest = num_samples(frames, PAPER_CONV_LAYERS)
    assert num_frames(fewest, PAPER_CONV_LAYERS) == frames
    assert num_frames(fewest - 1, PAPER_CONV_LAYERS) == frames - 1


def test_receptive_field_is_400_samples_and_frames_are_320_apart():
    assert num_samples(1, PAPER_CONV_LAYERS) == 400
    assert num_samples(2, PAPER_CONV_LAYERS) == 720


def test_valid_mask_is_true_at_the_first_positions():
    np.testing.assert_array_equal(
        valid_mask(jnp.array([0, 2, 3]), 3), [[False] * 3, [True, True, False], [True, True, True]]
    )
