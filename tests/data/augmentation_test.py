import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
from utterances import Letters, Memory, take, utterance

from w2v2_jax.data.audio import AudioError, encode_flac
from w2v2_jax.data.augmentation import Noise, Reverberation, Sometimes, Speed, lengths_after
from w2v2_jax.data.buckets import Bucket, FixedBuckets, PercentileBuckets
from w2v2_jax.data.pipeline import Transcribed
from w2v2_jax.description import build, describe
from w2v2_jax.overrides import override

RATE = 16_000


def rng(seed=0):
    return np.random.default_rng(seed)


def speech(num_samples=8000, seed=0):
    return rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def recorded(*waveforms):
    """A source of these recordings."""
    return Memory(
        tuple(
            {"audio": encode_flac(np.asarray(each, np.float32)), "num_samples": len(each), "text": "", "id": f"r{i}"}
            for i, each in enumerate(waveforms)
        ),
        "recorded",
    )


def tone(hertz, num_samples=RATE):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(num_samples) / RATE)).astype(np.float32)


def power(waveform):
    return np.square(waveform, dtype=np.float64).mean()


def impulse(delay=0, height=0.9, num_samples=600):
    response = np.zeros(num_samples, np.float32)
    response[delay] = height
    return response


def test_speech_at_its_own_speed_is_as_it_was():
    np.testing.assert_array_equal(Speed((1.0,)).open()(speech(), rng()), speech())


@pytest.mark.parametrize(("factor", "hertz"), [(0.5, 500), (0.9, 900), (1.1, 1100), (2, 2000)])
def test_a_tone_is_as_much_higher_and_shorter_as_speech_is_faster(factor, hertz):
    faster = Speed((factor,)).open()(tone(1000), rng())
    spectrum = np.abs(np.fft.rfft(faster))
    assert spectrum.argmax() * RATE / len(faster) == pytest.approx(hertz, abs=RATE / len(faster))
    assert len(faster) == pytest.approx(RATE / factor, abs=1)


def test_lengths_after_another_speed_are_those_that_were_told():
    num_samples = np.concatenate([np.arange(400, 700), rng().integers(700, 40_000, 100)])
    for factor in (0.5, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 2):
        alter = Speed((factor,)).open()
        found = [len(alter(np.ones(each, np.float32), rng())) for each in num_samples]
        fewest, most = Speed((factor,)).lengths(num_samples)
        np.testing.assert_array_equal(found, fewest)
        np.testing.assert_array_equal(found, most)


def test_each_speed_is_as_likely_and_lengths_are_between_the_slowest_and_the_fastest():
    speed = Speed((0.9, 1, 1.1))
    generator, alter = rng(), speed.open()
    lengths = [len(alter(speech(990), generator)) for _ in range(300)]
    found, counts = np.unique(lengths, return_counts=True)
    assert found.tolist() == [900, 990, 1100] and counts.min() > 70
    assert speed.lengths(np.array([990])) == (900, 1100)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 3], ids=["short noise", "as long", "long noise"])
def test_the_ratio_of_speech_to_noise_is_the_one_that_was_drawn(seconds):
    noise = recorded(speech(int(seconds * RATE), seed=1), 0.01 * speech(int(seconds * RATE), seed=2))
    for ratio in (-5, 0, 20):
        noisy = Noise(noise, (ratio, ratio)).open()(speech(), rng())
        assert 10 * np.log10(power(speech()) / power(noisy - speech())) == pytest.approx(ratio, abs=0.01)


def test_ratios_are_drawn_from_all_of_their_range():
    alter, generator = Noise(recorded(speech(RATE, seed=1)), (5, 20)).open(), rng()
    added = [power(alter(speech(), generator) - speech()) for _ in range(200)]
    ratios = 10 * np.log10(power(speech()) / np.array(added))
    assert 5 <= ratios.min() < 6 and 19 < ratios.max() <= 20
    assert ratios.mean() == pytest.approx(12.5, abs=1)


def test_noise_is_a_piece_from_anywhere_of_any_recording():
    noises = [speech(20_000, seed=1), speech(20_000, seed=2)]
    alter, generator = Noise(recorded(*noises), (0, 0)).open(), rng()
    places = []
    for _ in range(20):
        added = alter(speech(), generator) - speech()
        likeness = [scipy.signal.correlate(noise, added, "valid", "fft") for noise in noises]
        loudest = max((0, 1), key=lambda number: likeness[number].max())
        places.append((loudest, int(likeness[loudest].argmax())))
    assert len(set(places)) == 20
    assert min(np.bincount([number for number, _ in places])) > 4
    assert min(place for _, place in places) < 2_000 and max(place for _, place in places) > 10_000


def test_noise_that_is_too_short_comes_again():
    short = recorded(speech(500, seed=1))
    added = Noise(short, (0, 0)).open()(speech(1200), rng()) - speech(1200)
    np.testing.assert_allclose(added[500:1000], added[:500], atol=1e-6)
    np.testing.assert_allclose(added[1000:], added[:200], atol=1e-6)


def test_silence_within_a_recording_of_noise_is_passed_over():
    half = np.concatenate([np.zeros(20_000, np.float32), speech(20_000, seed=1)])
    alter, generator = Noise(recorded(half), (0, 0)).open(), rng()
    for _ in range(50):
        noisy = alter(speech(1000), generator)
        assert power(noisy - speech(1000)) == pytest.approx(power(speech(1000)), rel=1e-3)


def test_silent_speech_stays_silent():
    for augmentation in (Noise(recorded(speech()), (0, 0)), Reverberation(recorded(impulse()))):
        assert not augmentation.open()(np.zeros(1000, np.float32), rng()).any()


@pytest.mark.parametrize("delay", [0, 7, 599])
def test_in_a_room_of_one_impulse_speech_is_as_it_was(delay):
    heard = Reverberation(recorded(impulse(delay))).open()(speech(), rng())
    np.testing.assert_allclose(heard, speech(), atol=1e-6)


def test_speech_in_a_room_keeps_its_energy_and_its_place():
    """Direct sound after 100 samples, an echo 3,000 later of half its strength."""
    response = impulse(100, 0.8, 4000) + impulse(3100, 0.4, 4000)
    heard = Reverberation(recorded(response)).open()(speech(), rng())
    assert len(heard) == 8000
    assert power(heard) == pytest.approx(power(speech()), rel=1e-5)
    lags = scipy.signal.correlate(heard, speech())[7999:]
    assert lags.argmax() == 0 and lags[1:].argmax() == 2999
    # The last 3,000 of 8,000 samples have their echo beyond the end.
    assert lags[3000] / lags[0] == pytest.approx(0.5 * 5 / 8, abs=0.03)


def test_a_convolution_is_that_of_the_definition():
    response, waveform = speech(450, seed=3), speech(700)
    direct = np.abs(response).argmax()
    expected = np.convolve(waveform.astype(np.float64), response)[direct : direct + 700]
    heard = Reverberation(recorded(response)).open()(waveform, rng())
    np.testing.assert_allclose(heard / heard.std(), expected / expected.std(), atol=2e-3)


def test_sometimes_is_as_often_as_it_says():
    alter, generator = Sometimes(Speed((2,)), 0.3).open(), rng()
    assert np.mean([len(alter(speech(1000), generator)) == 500 for _ in range(500)]) == pytest.approx(0.3, abs=0.06)
    assert Sometimes(Speed((2,)), 0.3).lengths(np.array([1000])) == (500, 1000)
    assert Sometimes(Speed((0.5,)), 0.3).lengths(np.array([1000])) == (1000, 2000)


def test_lengths_after_several_augmentations_are_those_of_one_after_the_other():
    augment = (Speed((0.8, 1)), Noise(recorded(speech()), (0, 1)), Speed((1, 1.25)))
    assert lengths_after(augment, np.array([1000, 2000]))[0].tolist() == [800, 1600]
    assert lengths_after(augment, np.array([1000, 2000]))[1].tolist() == [1250, 2500]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Speed(()), r"factors=\(\): give factors from 0.5 to 2"),
        (lambda: Speed((1, 0)), r"factors=\(1, 0\)"),
        (lambda: Speed((2.1,)), r"factors=\(2.1,\)"),
        (lambda: Noise(recorded(), (20, 5)), r"snr=\(20, 5\): give the lowest and the highest"),
        (lambda: Noise(recorded(), (0, np.inf)), "give the lowest and the highest"),
        (lambda: Sometimes(Speed(), 1.1), "probability=1.1"),
        (lambda: Noise(recorded(), (5, 20)).open(), "recorded has no recordings"),
        (lambda: Reverberation(recorded()).open(), "recorded has no recordings"),
    ],
)
def test_what_cannot_augment_is_an_error(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_recordings_of_silence_are_an_error_that_names_them():
    silent = recorded(np.zeros(9000))
    with pytest.raises(AudioError, match=r"silent: 10 pieces of noise in a row were, the last from 'r0'"):
        Noise(silent, (5, 20)).open()(speech(), rng())
    with pytest.raises(AudioError, match="no impulse in the response 'r0'"):
        Reverberation(silent).open()(speech(), rng())


SPOKEN = Memory(tuple(utterance(i, 1000 + 40 * i, text="abc"[: i % 4]) for i in range(12)))
PLAIN = Transcribed(SPOKEN, Letters(), PercentileBuckets(16_000, 2, 2, round_samples_to=10), normalise=False)
SLOWER = (Speed((0.9, 1, 1.1)),)


def test_batches_have_room_for_the_slowest_speech():
    """The longest have 1,440 samples, at nine tenths of their speed 1,600."""
    augmented = replace(PLAIN, augment=SLOWER)
    assert max(shape.samples.shape[1] for shape in augmented.shapes()) == 1600
    assert {batch.samples.shape for batch in take(augmented.batches(0), 20)} == {
        shape.samples.shape for shape in augmented.shapes()
    }


def test_an_utterance_is_another_in_each_epoch_and_zero_beyond_its_end():
    source = Memory((utterance(0, 1000, "a"),))
    fixed = FixedBuckets((Bucket(1200, 2, 8),))
    augment = (*SLOWER, Noise(recorded(speech(4000)), (5, 20)), Reverberation(recorded(impulse(3), speech(700))))
    rows = take(replace(PLAIN, source=source, buckets=fixed, augment=augment).batches(0), 10)
    assert len({row.tobytes() for batch in rows for row in batch.waveform}) == 20
    for batch in rows:
        for row, num_samples in zip(batch.waveform, batch.num_samples, strict=True):
            assert num_samples in (909, 1000, 1111)
            assert row[:num_samples].any() and not row[num_samples:].any()


def test_what_is_heard_is_normalised_after_all_else():
    loud = recorded(speech(1000), speech(1200))
    data = replace(PLAIN, source=loud, augment=(Noise(recorded(speech(4000)), (0, 5)),), normalise=True)
    for batch in take(data.batches(0), 4):
        for row, num_samples in zip(batch.waveform, batch.num_samples, strict=True):
            assert row[:num_samples].mean() == pytest.approx(0, abs=1e-5)
            assert row[:num_samples].std() == pytest.approx(1, abs=1e-3)


def test_an_evaluation_is_of_the_utterances_as_they_are():
    augmented = replace(PLAIN, augment=(*SLOWER, Noise(recorded(speech(4000)), (0, 5))))
    expected, found = (
        sorted(row[:n].tobytes() for batch in data.epoch() for row, n in zip(*batch[:2], strict=True))
        for data in (PLAIN, augmented)
    )
    assert [row for row in found if row] == [row for row in expected if row]


def test_speech_that_fits_nowhere_once_it_is_slower_or_faster_is_an_error():
    one = replace(PLAIN, source=Memory((utterance(0, 420),)), augment=SLOWER)
    with pytest.raises(ValueError, match=r"'u0' has 420 samples \(382 to 467 augmented\)"):
        one.batches(0)
    one = replace(one, source=Memory((utterance(0, 1000),)), buckets=FixedBuckets((Bucket(1110, 1, 8),)))
    with pytest.raises(ValueError, match=r"'u0' has 1000 samples \(909 to 1111 augmented\)"):
        one.batches(0)


def test_a_source_of_nothing_is_an_error_before_the_first_batch():
    with pytest.raises(ValueError, match="recorded has no recordings"):
        replace(PLAIN, augment=(Noise(recorded(), (5, 20)),)).batches(0)


def test_augmentations_are_kept_in_checkpoints_and_can_be_changed():
    augment = (Speed((0.9, 1, 1.1)), Sometimes(Noise(Memory((), "n"), (5, 20)), 0.5), Reverberation(Memory((), "r")))
    assert build(json.loads(json.dumps(describe(augment)))) == augment
    changed = override(replace(PLAIN, augment=augment), {"augment.1.augmentation.snr": (0, 10)})
    assert changed.augment[1].augmentation.snr == (0, 10)
    assert override(PLAIN, {"augment": SLOWER}).augment == SLOWER
