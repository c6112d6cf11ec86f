from collections import Counter

import numpy as np
import pytest

from w2v2_jax.data.buckets import Bucket, FixedBuckets, PercentileBuckets, Schedule, fits, round_up

LENGTHS = np.random.default_rng(0).lognormal(12, 0.5, 10_000).astype(np.int64)
LABELS = LENGTHS // 1000
BUCKETS = PercentileBuckets(samples_per_batch=16_000_000)(LENGTHS, LABELS)


def test_percentile_buckets_share_the_corpus_about_equally():
    bucket = fits(BUCKETS, LENGTHS, LABELS).argmax(axis=1)
    assert len(BUCKETS) == 5
    assert all(abs(count - 2000) < 100 for count in Counter(bucket).values())


def test_percentile_buckets_hold_every_utterance():
    assert fits(BUCKETS, LENGTHS, LABELS).any(axis=1).all()


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_bucket_fills_its_samples_with_a_multiple_of_utterances(bucket):
    assert bucket.batch_size % 8 == 0
    assert bucket.max_samples * bucket.batch_size <= 16_000_000 < bucket.max_samples * (bucket.batch_size + 8)


@pytest.mark.parametrize("num_utterances, batch_size", [(11, 8), (16, 16), (3, 8)])
def test_a_batch_has_no_utterance_twice_unless_there_are_too_few(num_utterances, batch_size):
    lengths, labels = np.full(num_utterances, 8000), np.full(num_utterances, 3)
    assert PercentileBuckets(10**7)(lengths, labels) == (Bucket(8000, batch_size, 16),)


def test_ten_minutes_are_one_batch_of_the_recipes_1600_seconds_and_an_hour_is_two():
    """Cut into five buckets, a tenth of the recipe's audio would make a step."""
    seconds = np.random.default_rng(0).uniform(2, 16, 1000)
    for minutes, num_buckets in ((10, 1), (60, 2), (600, 5)):
        lengths = (16_000 * np.tile(seconds, 5)[: int(minutes * 60 / 9)]).astype(np.int64)
        buckets = PercentileBuckets(25_600_000)(lengths, lengths // 1000)
        assert len(buckets) == num_buckets
        assert all(bucket.batch_size * bucket.max_samples > 0.6 * 25_600_000 for bucket in buckets)


def test_equal_lengths_make_one_bucket_and_texts_may_be_empty():
    assert PercentileBuckets(64_000)(np.array([7999] * 20), np.zeros(20, int)) == (Bucket(8000, 8, 16),)


def test_too_few_samples_for_the_longest_utterances_are_an_error():
    with pytest.raises(ValueError, match="samples_per_batch to 64000 or lower batch_multiple"):
        PercentileBuckets(63_999)(np.array([7999]), np.array([1]))


@pytest.mark.parametrize("name", ["samples_per_batch", "num_buckets", "batch_multiple", "round_samples_to"])
def test_buckets_of_nothing_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0: give at least 1"):
        PercentileBuckets(**{"samples_per_batch": 10, name: 0})


def test_fixed_buckets_stay_as_given():
    buckets = (Bucket(1000, 8, 10), Bucket(2000, 4, 10))
    assert FixedBuckets(buckets)(LENGTHS, LABELS) == buckets


def test_an_utterance_fits_where_neither_samples_nor_labels_exceed_the_bucket():
    fitting = fits((Bucket(10, 1, 5), Bucket(20, 1, 9)), np.array([10, 11, 10, 21]), np.array([5, 5, 6, 1]))
    assert fitting.tolist() == [[True, True], [False, True], [False, True], [False, False]]


@pytest.mark.parametrize("number, rounded", [(0, 0), (1, 4), (4, 4), (5, 8)])
def test_rounding_goes_up_to_a_multiple(number, rounded):
    assert round_up(number, 4) == rounded


SCHEDULE = Schedule(num_utterances=(10, 7, 1, 24), batch_sizes=(4, 8, 8, 8), seed=0)


def test_a_schedule_takes_the_batches_of_a_bucket_each_once_and_none_is_left_behind():
    # 8 epochs are 20, 7, 1 and 24 whole batches.
    places = [SCHEDULE[step] for step in range(52)]
    assert SCHEDULE.first_step(8) == 52
    assert sorted(places) == [(b, i) for b, count in enumerate((20, 7, 1, 24)) for i in range(count)]


def test_a_schedule_has_the_batches_of_an_epoch_in_another_order_each_time():
    orders = {tuple(SCHEDULE[step][0] for step in range(52 * n, 52 * (n + 1))) for n in range(20)}
    assert len(orders) == 20


def test_a_late_step_is_found_without_the_steps_before():
    # 8 million epochs later the schedule has taken a million times as many batches of each bucket.
    later = [SCHEDULE[step] for step in range(52 * 10**6, 52 * 10**6 + 52)]
    counts = (20, 7, 1, 24)
    assert sorted(later) == [(b, 10**6 * count + i) for b, count in enumerate(counts) for i in range(count)]


def test_a_corpus_smaller_than_a_batch_gives_batches_all_the_same():
    schedule = Schedule(num_utterances=(1, 3), batch_sizes=(8, 8), seed=0)
    assert sorted(schedule[step] for step in range(4)) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_fractions_of_utterances_in_an_epoch_come_to_whole_batches_in_their_proportion():
    """Batches of 4, 4 and 2 rows from 7.2, 0.3 and 2.5 rows an epoch: 1.8, 0.075 and 1.25 batches."""
    schedule = Schedule(num_utterances=(7.2, 0.3, 2.5), batch_sizes=(4, 4, 2), seed=0)
    places = [schedule[step] for step in range(125)]
    assert schedule.first_batches(40) == [72, 3, 50]
    assert sorted(places) == [(b, i) for b, count in enumerate((72, 3, 50)) for i in range(count)]
