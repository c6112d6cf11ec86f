import json
import logging
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from utterances import Letters, Memory, assert_equal, assert_joined, numbers, take, utterance

from w2v2_jax.data import audio
from w2v2_jax.data.audio import AudioError, encode_flac
from w2v2_jax.data.augmentation import Noise, Reverberation, Sometimes, Speed
from w2v2_jax.data.buckets import Bucket, FixedBuckets, PercentileBuckets
from w2v2_jax.data.iterators import Host
from w2v2_jax.data.mixtures import FixedShares, Mixture
from w2v2_jax.data.pipeline import Clips, Transcribed

LENGTHS = [500, 700, 900, 1000, 1200, 1500, 1700, 2000, 2500, 3000, 3500]
TEXTS = ["a", "bb", "ccc", "dddd", "e", "ff", "ggg", "hhhh", "iiiii", "j", "kk"]
SOURCE = Memory(tuple(utterance(i, n, text) for i, (n, text) in enumerate(zip(LENGTHS, TEXTS, strict=True))))
CLIPS = Clips(SOURCE, batch_size=4, num_samples=1000, normalise=False, min_samples=400)
BUCKETS = FixedBuckets((Bucket(1000, 4, 8), Bucket(2000, 8, 8), Bucket(4000, 4, 8)))
TRANSCRIBED = Transcribed(SOURCE, Letters(), BUCKETS, normalise=False)
MIXTURE = Mixture((Memory(SOURCE.utterances[:4]), Memory(SOURCE.utterances[4:])), FixedShares((3, 1)))
ROOM = Memory(({**utterance(0, 800), "audio": encode_flac(np.eye(1, 800, 9, dtype=np.float32)[0])},), "room")
AUGMENT = (Speed((0.9, 1, 1.1)), Sometimes(Noise(SOURCE, (5, 20)), 0.5), Reverberation(ROOM))
EVERY = {
    "clips": CLIPS,
    "transcribed": TRANSCRIBED,
    "mixed clips": replace(CLIPS, source=MIXTURE),
    "augmented mixture": replace(TRANSCRIBED, source=MIXTURE, augment=AUGMENT),
}


def datasets(*names):
    return pytest.mark.parametrize("data", [EVERY[name] for name in names], ids=names)


DATASETS = datasets(*EVERY)


@DATASETS
def test_the_same_seed_gives_the_same_batches(data):
    assert_equal(take(data.batches(7), 8), take(replace(data).batches(7), 8))


@DATASETS
def test_another_seed_gives_another_order(data):
    orders = [[numbers(batch) for batch in take(data.batches(seed), 8)] for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_each_epoch_has_every_utterance_once_in_another_order():
    rows = [number for batch in take(CLIPS.batches(0), 11) for number in numbers(batch)]
    epochs = [rows[start : start + 11] for start in (0, 11, 22, 33)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_an_utterance_is_cropped_elsewhere_in_the_next_epoch():
    data = replace(CLIPS, source=Memory((utterance(0, 5000),)), batch_size=2)
    batches = take(data.batches(0), 4)
    assert len({row.tobytes() for batch in batches for row in batch.waveform}) == 8


def test_a_crop_is_a_piece_of_its_utterance():
    data = replace(CLIPS, source=Memory((utterance(0, 5000),)), batch_size=2)
    whole = next(replace(data, num_samples=5000).epoch()).samples[0]
    pieces = np.lib.stride_tricks.sliding_window_view(whole, 1000)
    for row in next(data.batches(0)).samples:
        assert (pieces == row).all(axis=1).any()


@DATASETS
@pytest.mark.parametrize("count", [2, 4])
def test_hosts_together_have_the_batches_of_one_host(data, count):
    hosts = [take(data.batches_on(Host(index, count), 3), 12) for index in range(count)]
    assert_joined(hosts, take(data.batches_on(Host(0, 1), 3), 12))


@DATASETS
@pytest.mark.parametrize("count", [2, 4])
def test_hosts_together_evaluate_the_batches_of_one_host(data, count):
    assert_joined([list(data.epoch_on(Host(index, count))) for index in range(count)], list(data.epoch_on(Host(0, 1))))


def test_hosts_that_do_not_divide_the_batch_are_an_error():
    with pytest.raises(ValueError, match=r"4 rows.*3 processes"):
        CLIPS.batches_on(Host(0, 3), 0)


@DATASETS
@pytest.mark.parametrize("done", [0, 1, 2, 9])
def test_a_restored_iterator_goes_on_as_if_never_stopped(data, done):
    batches = data.batches(0)
    take(batches, done)
    state = json.loads(json.dumps(batches.get_state()))
    restored = data.batches(0)
    next(restored)
    restored.set_state(state)
    assert_equal(take(batches, 5), take(restored, 5))
    assert batches.get_state() == restored.get_state()


@DATASETS
def test_a_state_saved_on_four_hosts_is_restored_on_two_and_one(data):
    four = [data.batches_on(Host(index, 4), 0) for index in range(4)]
    for batches in four:
        take(batches, 3)
    state = four[2].get_state()
    expected = take(data.batches_on(Host(0, 1), 0), 8)[3:]
    for count in (1, 2):
        hosts = [data.batches_on(Host(index, count), 0) for index in range(count)]
        for batches in hosts:
            batches.set_state(state)
        assert_joined([take(batches, 5) for batches in hosts], expected)


@datasets("clips", "augmented mixture")
def test_worker_processes_continue_from_a_state_without_them(data):
    alone = data.batches(0)
    take(alone, 2)
    helped = replace(data, num_workers=2).batches(0)
    helped.set_state(alone.get_state())
    assert_equal(take(helped, 4), take(alone, 4))
    assert helped.get_state() == alone.get_state()
    helped.close()


@DATASETS
def test_the_waveform_is_zero_beyond_its_samples(data):
    for batch in take(data.batches(0), 6):
        for row, num_samples in zip(batch.waveform, batch.num_samples, strict=True):
            assert num_samples and row[:num_samples].all() and not row[num_samples:].any()


@DATASETS
def test_an_epoch_has_every_utterance_once_and_filler_rows_of_zeros(data):
    seen = Counter()
    for batch in data.epoch():
        seen.update(numbers(batch))
        filler = batch.num_samples == 0
        assert not any(np.any(column[filler]) for column in (*jax.tree.leaves(batch), batch.waveform))
    assert seen == Counter(range(11))


def test_an_epoch_of_clips_has_the_first_samples_of_each_utterance():
    batches = list(CLIPS.epoch())
    assert [list(batch.num_samples) for batch in batches] == [[500, 700, 900, 1000], [1000] * 4, [1000] * 3 + [0]]
    assert batches[0].waveform.shape == (4, 1000)


def test_only_the_crop_is_decoded_when_nothing_is_normalised(monkeypatch):
    record = utterance(0, 5000)
    decoded = []
    decode = audio.decode_flac

    def spy(data, start, buffer):
        waveform = decode(data, start, buffer)
        # Iterators of other tests may still be reading ahead.
        if data == record["audio"]:
            decoded.append(len(waveform))
        return waveform

    monkeypatch.setattr(audio, "decode_flac", spy)
    data = replace(CLIPS, source=Memory((record,)))
    plain, normalised = data.batches(0), replace(data, normalise=True).batches(0)
    next(plain)
    assert set(decoded) == {1000}
    next(normalised)
    assert set(decoded) == {1000, 5000}


def test_normalisation_is_over_the_whole_utterance_before_the_crop():
    halves = np.concatenate([np.full(3000, -0.5), np.full(3000, 0.5)]).astype(np.float32)
    record = {"audio": encode_flac(halves), "num_samples": 6000, "text": "", "id": "steps"}
    clip = next(replace(CLIPS, source=Memory((record,)), batch_size=1, normalise=True).epoch()).waveform
    np.testing.assert_allclose(clip, -0.5 / np.sqrt(0.25 + 1e-5), rtol=1e-5)


def test_short_utterances_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        seen = {number for batch in replace(CLIPS, min_samples=1000).epoch() for number in numbers(batch)}
    assert seen == set(range(3, 11))
    assert caplog.messages == ["left out 3 of 11 utterances: under 1000 samples"]


def test_a_source_of_short_utterances_alone_is_an_error():
    with pytest.raises(ValueError, match="longest has 3500"):
        replace(CLIPS, min_samples=4000).batches(0)


@pytest.mark.parametrize("name", ["num_samples", "min_samples"])
def test_clips_shorter_than_the_receptive_field_are_an_error(name):
    with pytest.raises(ValueError, match=f"{name}=399.*receptive field"):
        replace(CLIPS, **{name: 399})


@pytest.mark.parametrize("batch_size", [0, -4])
def test_batches_without_rows_are_an_error(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: give at least 1"):
        replace(CLIPS, batch_size=batch_size)


@datasets("clips", "transcribed")
@pytest.mark.parametrize("changes", [{}, {"normalise": True}, {"num_workers": 1}], ids=str)
def test_a_damaged_recording_is_an_error_that_names_the_utterance(data, changes):
    damaged = dict(utterance(0, 1000), audio=b"not FLAC")
    with pytest.raises(AudioError, match="the audio of utterance 'u0'"):
        next(replace(data, source=Memory((damaged,)), **changes).batches(0))


def test_training_takes_every_utterance_equally_often():
    # Buckets of 4, 4 and 3 utterances in batches of 4, 8 and 4: 8 epochs are 8 + 4 + 6 batches.
    seen = Counter(number for batch in take(TRANSCRIBED.batches(0), 18) for number in numbers(batch))
    assert seen == Counter(dict.fromkeys(range(11), 8))


def test_there_are_as_many_shapes_as_buckets():
    shapes = {tuple(column.shape for column in batch[:4]) for batch in take(TRANSCRIBED.batches(0), 9)}
    assert shapes == {((b.batch_size, b.max_samples), (b.batch_size,), (b.batch_size, 8), (b.batch_size,))
                      for b in BUCKETS.buckets}  # fmt: skip


def test_a_row_has_its_whole_utterance_and_its_labels():
    for batch in take(TRANSCRIBED.batches(0), 9):
        for row, number in enumerate(numbers(batch)):
            assert batch.num_samples[row] == LENGTHS[number]
            assert list(batch.labels[row, : batch.num_labels[row]]) == list(Letters().encode(TEXTS[number]))
            assert not batch.labels[row, batch.num_labels[row] :].any()


def test_buckets_from_percentiles_hold_the_corpus():
    data = replace(TRANSCRIBED, buckets=PercentileBuckets(8000, num_buckets=2, batch_multiple=2, round_samples_to=100))
    assert Counter(number for batch in data.epoch() for number in numbers(batch)) == Counter(range(11))
    assert len(data.shapes()) == 2


@pytest.mark.parametrize("num_samples, text", [(4001, "abc"), (1000, "a" * 9), (399, "a")])
def test_an_utterance_that_fits_in_no_bucket_is_an_error_that_names_it(num_samples, text):
    data = replace(TRANSCRIBED, source=Memory((utterance(0, 1000), utterance(5, num_samples, text))))
    with pytest.raises(ValueError, match=f"'u5' has {num_samples} samples and {len(text)} labels"):
        data.batches(0)


def test_text_outside_the_vocabulary_is_an_error_that_names_the_utterance():
    with pytest.raises(ValueError, match=r"'u3'.*'7' is not a letter"):
        replace(TRANSCRIBED, source=Memory((utterance(3, 1000, "a7"),))).batches(0)


def test_what_grain_is_given_tells_itself_in_few_words_however_many_labels_there_are():
    """It is asked to once a batch, which all labels of a corpus would take longer than."""
    for rows in TRANSCRIBED._rows:
        parts = rows.parts(TRANSCRIBED._portions)
        assert max(len(repr(each)) for each in (rows, rows.row, *(part for part, _ in parts))) < 200
