import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.batches import AudioBatch, LabeledBatch, Levels
from w2v2_jax.data.audio import decode_flac, encode_flac

RECORDED = np.array([[0, 3, -1, 2], [5, 7, 0, 0], [0, 0, 0, 0]], np.int16)
LENGTHS = np.array([4, 2, 0], np.int32)
LEVELS = Levels(np.array([1, -1, 0], np.float32), np.array([0.5, 2, 0], np.float32))
HEARD = [[-0.5, 1, -1, 0.5], [12, 16, 0, 0], [0, 0, 0, 0]]
LABELS = np.zeros((3, 1), np.int32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    "batch", [AudioBatch(RECORDED, LENGTHS, LEVELS), LabeledBatch(RECORDED, LENGTHS, *LABELS, LEVELS)], ids=["", "text"]
)
@pytest.mark.parametrize("hear", [lambda batch: batch.waveform, jax.jit(lambda batch: batch.waveform)], ids=["", "jit"])
def test_samples_with_levels_are_heard_as_waveforms_that_end_where_they_end(batch, hear):
    waveform = hear(batch)
    assert waveform.dtype == jnp.float32 and waveform.tolist() == HEARD


def test_samples_without_levels_are_waveforms():
    waveform = RECORDED.astype(np.float32)
    assert AudioBatch(waveform, LENGTHS).waveform is waveform


def test_a_recording_is_heard_as_its_decoder_hears_it():
    data = encode_flac(np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32))
    row = np.zeros(1000, np.int16)
    decode_flac(data, 0, row)
    levels = Levels(np.zeros(1, np.float32), np.full(1, 2**-15, np.float32))
    np.testing.assert_array_equal(AudioBatch(row[None], np.array([1000]), levels).waveform[0], decode_flac(data))
