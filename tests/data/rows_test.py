import numpy as np
import pytest
from utterances import utterance

from w2v2_jax.data.audio import decode_record, normalise
from w2v2_jax.data.buckets import Bucket
from w2v2_jax.data.mixtures import Portion
from w2v2_jax.data.rows import STEP, BucketRows, Spoken, altered, crop_of, first_clip, levels_of, padded

RECORDS = tuple(utterance(number, 1000 + 100 * number) for number in range(6))
LABELS = [np.arange(1, 2 + number, dtype=np.int32) for number in range(6)]
ROWS = BucketRows(RECORDS, LABELS, np.array([True, False, True, True, False, True]), Bucket(1600, 4, 8), True)
RECORDED = np.rint(2**13 * np.random.default_rng(0).normal(size=700)).astype(np.int16)


def test_padding_is_zeros_behind_and_the_length_is_told():
    row, length = padded(np.array([3, 4], np.int32), 5)
    assert row.tolist() == [3, 4, 0, 0, 0] and length == 2


def test_a_bucket_has_the_rows_of_its_utterances_normalised_in_their_order():
    assert len(ROWS) == 4
    for index, number in enumerate((0, 2, 3, 5)):
        samples, num_samples, labels, num_labels, levels = ROWS[index]
        assert (num_samples, num_labels) == (1000 + 100 * number, 1 + number)
        assert samples.shape == (1600,) and labels.tolist() == [*range(1, 2 + number), *[0] * (7 - number)]
        np.testing.assert_array_equal(samples[:num_samples] / 2**15, decode_record(RECORDS[number]))
        heard = (samples[:num_samples] - levels.offset) * levels.scale
        np.testing.assert_allclose(heard, normalise(decode_record(RECORDS[number])), atol=2e-6)
        assert not samples[num_samples:].any()


@pytest.mark.parametrize("loudness", [0.001, 1.0, 3.0])
@pytest.mark.parametrize("is_normalised", [False, True])
def test_an_altered_waveform_keeps_16_bits_however_loud_it_is(loudness, is_normalised):
    spoken = Spoken(RECORDED, LABELS[0])
    alterations = (lambda waveform, rng: waveform * np.float32(loudness / np.abs(waveform).max()),)
    samples, _, step = altered(alterations, spoken, np.random.default_rng(0))
    offset, scale = levels_of(samples, step, is_normalised)
    expected = alterations[0](RECORDED * np.float32(STEP), None)
    expected = normalise(expected) if is_normalised else expected
    np.testing.assert_allclose((samples - offset) * scale, expected, atol=np.abs(expected).max() / 2**15)
    assert samples.dtype == np.int16 and np.abs(samples).max() == 2**15 - 1


def test_a_waveform_that_no_augmentation_altered_is_the_recorded_one():
    spoken = Spoken(RECORDED, LABELS[0])
    assert altered((lambda waveform, rng: waveform,), spoken, np.random.default_rng(0)) is spoken


def test_silence_stays_silent():
    silence, rng = (lambda waveform, rng: 0 * waveform), np.random.default_rng(0)
    samples, _, step = altered((silence,), Spoken(RECORDED, LABELS[0]), rng)
    offset, scale = levels_of(samples, step, normalise=True)
    assert not samples.any() and offset == 0 and np.isfinite(scale)


def test_an_epoch_of_a_bucket_has_the_shares_of_its_portions():
    """6 utterances an epoch: 4.5 of the first four, of which three are here, and 1.5 of the last two, one here."""
    portions = (Portion("a", np.arange(4), 0.75), Portion("b", np.arange(4, 6), 0.25))
    (first, of_first), (last, of_last) = ROWS.parts(portions)
    assert (len(first), of_first) == (3, pytest.approx(4.5 * 3 / 4))
    assert (len(last), of_last) == (1, pytest.approx(1.5 / 2))
    assert len(last[0].samples) == 1500


def test_a_portion_without_utterances_here_has_no_part():
    portions = (Portion("a", np.array([1, 4]), 0.5), Portion("b", np.array([0, 2, 3, 5]), 0.5))
    [(rows, weight)] = ROWS.parts(portions)
    assert (len(rows), weight) == (4, 3.0)


def test_the_start_of_an_utterance_is_that_of_the_whole_normalised():
    short, _, levels = first_clip(crop_of(True), 400, RECORDS[0])
    whole, _, levels_of_whole = first_clip(crop_of(True), 1000, RECORDS[0])
    np.testing.assert_array_equal(short, whole[:400])
    assert levels == levels_of_whole
