import numpy as np
import pytest
from utterances import utterance

from w2v2_jax.data.buckets import Bucket
from w2v2_jax.data.mixtures import Portion
from w2v2_jax.data.rows import BucketRows, crop_of, first_clip, padded

RECORDS = tuple(utterance(number, 1000 + 100 * number) for number in range(6))
LABELS = [np.arange(1, 2 + number, dtype=np.int32) for number in range(6)]
ROWS = BucketRows(RECORDS, LABELS, np.array([True, False, True, True, False, True]), Bucket(1600, 4, 8), True)


def test_padding_is_zeros_behind_and_the_length_is_told():
    row, length = padded(np.array([3, 4], np.int32), 5)
    assert row.tolist() == [3, 4, 0, 0, 0] and length == 2


def test_a_bucket_has_the_rows_of_its_utterances_normalised_in_their_order():
    assert len(ROWS) == 4
    for index, number in enumerate((0, 2, 3, 5)):
        waveform, num_samples, labels, num_labels = ROWS[index]
        assert (num_samples, num_labels) == (1000 + 100 * number, 1 + number)
        assert waveform.shape == (1600,) and labels.tolist() == [*range(1, 2 + number), *[0] * (7 - number)]
        assert waveform[:num_samples].mean() == pytest.approx(0, abs=1e-5) and not waveform[num_samples:].any()


def test_an_epoch_of_a_bucket_has_the_shares_of_its_portions():
    """6 utterances an epoch: 4.5 of the first four, of which three are here, and 1.5 of the last two, one here."""
    portions = (Portion("a", np.arange(4), 0.75), Portion("b", np.arange(4, 6), 0.25))
    (first, of_first), (last, of_last) = ROWS.parts(portions)
    assert (len(first), of_first) == (3, pytest.approx(4.5 * 3 / 4))
    assert (len(last), of_last) == (1, pytest.approx(1.5 / 2))
    assert len(last[0].waveform) == 1500


def test_a_portion_without_utterances_here_has_no_part():
    portions = (Portion("a", np.array([1, 4]), 0.5), Portion("b", np.array([0, 2, 3, 5]), 0.5))
    [(rows, weight)] = ROWS.parts(portions)
    assert (len(rows), weight) == (4, 3.0)


def test_the_start_of_an_utterance_is_that_of_the_whole_normalised():
    short, _ = first_clip(crop_of(True), 400, RECORDS[0])
    whole, _ = first_clip(crop_of(True), 1000, RECORDS[0])
    np.testing.assert_array_equal(short, whole[:400])
