import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from planted import record

from w2v2_jax.data.augmentation import Noise, Speed
from w2v2_jax.data.buckets import Bucket, FixedBuckets, PercentileBuckets
from w2v2_jax.data.iterators import Host
from w2v2_jax.data.mixtures import FixedShares, Mixture
from w2v2_jax.data.pipeline import Clips, Transcribed
from w2v2_jax.data.records import columns
from w2v2_jax.data.text import LETTERS
from w2v2_jax.preflight.hosts import Step, compare, evaluation_steps, training_steps
from w2v2_jax.preflight.soundless import Known, soundless

LENGTHS = (400, 450, 500, 700, 900, 1000, 1200, 1500, 1700, 2000, 2500, 3000, 3500)
TEXTS = ("A", "BB", "CCC", "DDDD", "E", "FF", "GGG", "HHHH", "IIIII", "J", "KK", "L", "M")


@dataclass(frozen=True)
class Memory:
    """A source in memory."""

    utterances: tuple

    def records(self):
        return self.utterances


SOURCE = Memory(
    tuple(
        record(f"u{i}", text, waveform=np.full(n, 0.1, np.float32))
        for i, (n, text) in enumerate(zip(LENGTHS, TEXTS, strict=True))
    )
)
FIXED = FixedBuckets((Bucket(1000, 4, 8), Bucket(2000, 8, 8), Bucket(3000, 4, 4), Bucket(4000, 4, 8)))
CLIPS = Clips(SOURCE, batch_size=4, num_samples=5000, normalise=False, min_samples=500)
DATA = {
    "clips": CLIPS,
    "normalised": replace(CLIPS, normalise=True),
    "shorter than they may be": replace(CLIPS, num_samples=400, min_samples=1000),
    "more rows than clips": replace(CLIPS, batch_size=16, min_samples=2000),
    "fixed buckets": Transcribed(SOURCE, LETTERS, FIXED, normalise=False),
    "percentiles": Transcribed(SOURCE, LETTERS, PercentileBuckets(16_000, 3, 4, 100, 2), normalise=True),
}
PARTS = (Memory(SOURCE.utterances[:5]), Memory(SOURCE.utterances[5:]))
DATA |= {
    "mixed clips": replace(CLIPS, source=Mixture(PARTS, FixedShares((3, 1)))),
    "mixed transcripts": replace(DATA["fixed buckets"], source=Mixture(PARTS, FixedShares((1, 5)))),
}
EACH_DATA = pytest.mark.parametrize("data", DATA.values(), ids=DATA.keys())


def without_sound(data):
    return soundless(data, Known(*columns(data.source.records(), *Known._fields)))


def assert_told(step, batch):
    """The step is what the batch is: its shape, and by their lengths, all different, the utterances of its rows."""
    lengths = (batch.labels.shape[1],) if hasattr(batch, "labels") else ()
    assert step.shape == (*batch.waveform.shape, *lengths)
    told = np.where(step.utterances < 0, 0, np.array(LENGTHS)[step.utterances])
    np.testing.assert_array_equal(np.minimum(told, batch.waveform.shape[1]), batch.num_samples)


@EACH_DATA
@pytest.mark.parametrize("count", [1, 4])
def test_each_process_is_told_the_batches_of_training_that_it_gets(data, count):
    processes = [*training_steps(without_sound(data), count, 7, num_utterances=39, most=100)]
    assert len(processes) == count
    for index, steps in enumerate(processes):
        batches = data.batches_on(Host(index, count), 7)
        for step in steps:
            assert_told(step, next(batches))
        batches.close()


@EACH_DATA
@pytest.mark.parametrize("count", [1, 4])
def test_each_process_is_told_the_batches_of_an_evaluation_that_it_gets(data, count):
    for index, steps in enumerate(evaluation_steps(without_sound(data), count)):
        for step, batch in zip(steps, data.epoch_on(Host(index, count)), strict=True):
            assert_told(step, batch)


def test_rooms_for_augmentation_are_as_large_and_their_rows_the_same():
    buckets = PercentileBuckets(32_000, 3, 4, 100, 2)
    data = replace(DATA["percentiles"], buckets=buckets, augment=(Speed((0.5, 1.0)),))
    [steps] = training_steps(without_sound(data), 1, 7, num_utterances=39, most=100)
    batches = data.batches_on(Host(0, 1), 7)
    for step in steps:
        batch = next(batches)
        assert step.shape == (*batch.waveform.shape, batch.labels.shape[1])
        once = np.array(LENGTHS)[step.utterances]
        assert ((batch.num_samples == once) | (batch.num_samples == 2 * once)).all()
    batches.close()


def test_noise_that_is_not_there_is_an_error():
    data = replace(DATA["percentiles"], augment=(Noise(Memory(()), (5, 20)),))
    with pytest.raises(ValueError, match="has no recordings to augment with"):
        next(next(training_steps(without_sound(data), 1, 7, num_utterances=39, most=100)))


@pytest.mark.parametrize(("num_utterances", "most", "steps"), [(12, 100, 3), (13, 100, 4), (13, 2, 2)])
@pytest.mark.parametrize("count", [1, 4])
def test_training_goes_on_until_so_many_utterances_were_drawn(num_utterances, most, steps, count):
    processes = training_steps(without_sound(CLIPS), count, 0, num_utterances, most)
    assert [len([*process]) for process in processes] == [steps] * count


@EACH_DATA
@pytest.mark.parametrize("count", [1, 4])
def test_processes_are_in_step_and_an_evaluation_has_every_utterance_once(data, count):
    agreement = compare(evaluation_steps(without_sound(data), count), len(LENGTHS), lambda steps: None)
    assert agreement.difference == ""
    kept = np.array(LENGTHS) >= (data.min_samples if isinstance(data, Clips) else 0)
    np.testing.assert_array_equal(sum(agreement.times.values()), kept)


def test_steps_are_counted_as_they_are_compared():
    counts = []
    agreement = compare(training_steps(without_sound(CLIPS), 4, 0, 13, 100), len(LENGTHS), counts.append)
    assert (agreement.steps, sum(counts)) == (4, 4 * 4)
    assert agreement.times[1, 5000].sum() == 16


def steps_of(*shapes):
    return iter([Step(shape, np.arange(shape[0])) for shape in shapes])


A, B = (2, 500), (2, 900)


@pytest.mark.parametrize(
    ("processes", "steps", "difference"),
    [
        ([[A, B], [A, B]], 2, ""),
        ([[A, B], [A, A]], 1, "step 1: process 0 has 2 x 900, process 1 has 2 x 500"),
        ([[A], [A], [(3, 500)]], 0, "step 0: process 0 has 2 x 500, process 2 has 3 x 500"),
        ([[(2, 500, 8)], [(2, 500, 16)]], 0, "step 0: process 0 has 2 x 500 x 8, process 1 has 2 x 500 x 16"),
        ([[A, A, A], [A, A]], 2, "step 2: process 0 has 2 x 500, process 1 has no batch"),
        ([[A, A], [A, A, A]], 2, "step 2: process 0 has no batch, process 1 has 2 x 500"),
        ([[A], []], 0, "step 0: process 0 has 2 x 500, process 1 has no batch"),
    ],
)
def test_the_first_step_at_which_processes_differ_is_found(processes, steps, difference):
    agreement = compare(itertools.starmap(steps_of, processes), 3, lambda count: None)
    assert (agreement.steps, agreement.difference) == (steps, difference)
