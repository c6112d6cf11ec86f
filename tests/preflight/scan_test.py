import hashlib
import os
import signal

import numpy as np
import pytest
from planted import flac, noise, record, scanned, sound_corpus

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.remote import UnreachableError
from w2v2_jax.preflight.corpus import CHECKED, Part
from w2v2_jax.preflight.scan import NO_SOUND, measure, scan


def square(peak):
    return np.where(np.arange(4_000) % 8 < 4, peak, -peak).astype(np.int16)


def test_a_square_wave_has_the_level_of_its_peak_and_clips_at_full_scale():
    assert measure(flac(square(2**14))).rms == pytest.approx(0.5)
    assert measure(flac(square(2**14))).clipped == 0
    assert measure(flac(square(2**15 - 1))).clipped == 0.5  # the other half is one step above the lowest
    assert measure(flac(square(2**15 - 1) - (square(1) < 0))).clipped == 1


def test_a_header_is_told_as_it_is():
    sound = measure(flac(np.ones((900, 2), np.int16), rate=8_000))
    assert (sound.container, sound.rate, sound.channels, sound.num_samples) == ("FLAC", 8_000, 2, 900)
    assert measure(flac(square(9), kind="WAV")).container == "WAV"


def test_samples_are_known_by_their_md5_whatever_holds_them():
    digest = hashlib.md5(square(100).astype("<i2").tobytes()).digest()
    assert measure(flac(square(100))).digest == measure(flac(square(100), kind="WAV")).digest == digest


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.99])
def test_flac_that_is_cut_off_anywhere_cannot_be_decoded(share):
    data = flac(noise("cut", 30_000))
    with pytest.raises(AudioError, match=r"undecodable|cut short"):
        measure(data[: int(share * len(data))])


@pytest.mark.parametrize("place", [100, 5_000, 20_000, 40_000])
def test_a_byte_of_flac_that_is_changed_is_found(place):
    data = bytearray(flac(noise("changed", 30_000)))
    data[place] ^= 1
    with pytest.raises(AudioError):
        measure(bytes(data))


def test_other_samples_than_were_encoded_are_found_by_the_checksum_of_the_header():
    data = bytearray(flac(noise("altered")))
    data[30] ^= 1
    with pytest.raises(AudioError, match="altered"):
        measure(bytes(data))


def test_an_encoder_that_did_not_tell_its_checksum_is_believed():
    data = flac(noise("untold"))
    assert measure(data[:26] + bytes(16) + data[42:]) == measure(data)


@pytest.mark.parametrize("processes", [1, 2])
def test_records_are_scanned_in_their_order_and_counted(processes, monkeypatch):
    monkeypatch.setattr("w2v2_jax.preflight.scan.TOGETHER", 32)
    monkeypatch.setattr("w2v2_jax.preflight.scan.MANY", 0)
    records, counts = [record(f"u{i}", waveform=noise(str(i), 400)) for i in range(70)], []
    found = scan(Part("train", records), counts.append, processes)
    assert [each.id for each in found] == [f"u{i}" for i in range(70)]
    assert [each.index for each in found] == list(range(70))
    assert sum(counts) == 70 and len(counts) > 1


class Deadly(list):
    """Records that kill who reads them."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr("w2v2_jax.preflight.scan.MANY", 0)
    with pytest.raises(CorpusError, match="one of 2 processes that read train was killed"):
        scan(Part("train", Deadly([0])), lambda count: None, 2)


class Gone(list):
    """Records in a bucket that doesn't answer."""

    def __getitem__(self, index):
        raise UnreachableError("gs://bucket can't be reached")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bucket_that_is_gone_is_no_damage_to_its_records(processes, monkeypatch):
    monkeypatch.setattr("w2v2_jax.preflight.scan.MANY", 0)
    with pytest.raises(UnreachableError, match="gs://bucket"):
        scan(Part("train", Gone(range(9))), lambda count: None, processes)


class Damaged(list):
    """Records of which one can't be read."""

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("damaged") from RuntimeError("hash mismatch at byte 7")
        return super().__getitem__(index)


def test_a_record_that_cannot_be_read_is_known_by_its_place_and_the_others_are_read():
    first, second, third = scan(Part("train", Damaged(sound_corpus()["train"][:3])), lambda count: None)
    assert (second.name, second.unreadable, second.sound) == ("train[1]", "hash mismatch at byte 7", NO_SOUND)
    assert first.sound.num_samples == third.sound.num_samples == 8_000


def known_of(records):
    return {name: [record[name] for record in records] for name in CHECKED}


def test_a_record_that_cannot_be_read_has_its_name_from_the_index():
    records = sound_corpus()["train"][:3]
    found = scan(Part("train", Damaged(records), known_of(records)), lambda count: None)
    assert found[1].name == "train/train1"


def test_a_record_that_the_index_knows_otherwise_is_found():
    records = sound_corpus()["train"]
    known = [*records[:3], records[3] | {"text": "ANOTHER"}, *records[4:]]
    found = scan(Part("train", records, known_of(known)), lambda count: None)
    assert [each.id for each in found if each.misindexed] == ["train3"]
    assert found[3].misindexed == "text is 'FOUR SEASONS', in the index 'ANOTHER'"


def test_no_sound_is_kept():
    assert max(len(repr(each)) for each in scanned(sound_corpus())) < 1_000
