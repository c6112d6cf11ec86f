import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    AudioError,
    decode_flac,
    decode_record,
    encode_flac,
    normalise,
    read_audio,
    resample,
)


def tone(seconds=1.0, rate=SAMPLE_RATE, hertz=440.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    "suffix, error", [(".flac", 1e-4), (".wav", 1e-4), (".aiff", 1e-4), (".ogg", 0.05), (".mp3", 0.05)]
)
def test_a_tone_is_read_back_from_every_common_format(tmp_path, suffix, error):
    soundfile.write(tmp_path / f"tone{suffix}", tone(), SAMPLE_RATE)
    waveform = read_audio(tmp_path / f"tone{suffix}")
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform[1000:-1000], tone()[: len(waveform)][1000:-1000], atol=error)


def test_a_file_object_is_read_too():
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), SAMPLE_RATE, format="WAV")
    buffer.seek(0)
    assert len(read_audio(buffer)) == SAMPLE_RATE


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_sample_rates_are_resampled_and_keep_the_pitch(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", tone(rate=rate), rate)
    waveform = read_audio(tmp_path / "tone.wav")
    assert len(waveform) == SAMPLE_RATE
    assert np.abs(np.fft.rfft(waveform)).argmax() == 440  # one second: bin = hertz


def test_resampling_at_the_target_rate_changes_nothing():
    waveform = tone()
    assert resample(waveform, SAMPLE_RATE) is waveform


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(amplitude=0.6), tone(amplitude=0.2)], 1), SAMPLE_RATE)
    np.testing.assert_allclose(read_audio(tmp_path / "stereo.wav"), tone(amplitude=0.4), atol=1e-4)


def test_one_silent_channel_of_two_is_no_cancellation(tmp_path):
    soundfile.write(tmp_path / "left.wav", np.stack([tone(), np.zeros(SAMPLE_RATE)], 1), SAMPLE_RATE)
    np.testing.assert_allclose(read_audio(tmp_path / "left.wav"), tone() / 2, atol=1e-4)


def test_a_float_wav_keeps_its_scale(tmp_path):
    soundfile.write(tmp_path / "float.wav", tone(), SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "float.wav"), tone())


def test_a_wrong_suffix_of_a_known_format_is_read(tmp_path):
    soundfile.write(tmp_path / "tone.flac", tone(), SAMPLE_RATE)
    (tmp_path / "tone.flac").rename(tmp_path / "tone.wav")
    assert len(read_audio(tmp_path / "tone.wav")) == SAMPLE_RATE


def cut_in_half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def damaged(waveform, at, value):
    waveform = waveform.copy()
    waveform[at] = value
    return waveform


def write(waveform, **kwargs):
    return lambda path: soundfile.write(path, waveform, SAMPLE_RATE, **kwargs)


def write_bytes(data):
    return lambda path: path.write_bytes(data)


def write_half(waveform, **kwargs):
    def write_and_cut(path):
        soundfile.write(path, waveform, SAMPLE_RATE, **kwargs)
        cut_in_half(path)

    return write_and_cut


def write_corrupt_flac(path):
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE)
    soundfile.write(path, noise, SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)


MP3 = 10 * SAMPLE_RATE
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
BAD = {
    "nan.wav": (write(damaged(tone(), 7, np.nan), subtype="FLOAT"), "not finite: 1 samples"),
    "inf.wav": (write(damaged(tone(), 7, np.inf), subtype="FLOAT"), "not finite: 1 samples"),
    "half.wav": (write_half(tone()), "cut short"),
    "half.mp3": (write_half(tone(10)), "cut short"),
    "half.flac": (write_half(np.random.default_rng(0).normal(0, 0.1, MP3).astype(np.float32)), "unreadable|cut short"),
    "corrupt.flac": (write_corrupt_flac, "unreadable|cut short"),
    "empty.wav": (write_bytes(b""), "unreadable"),
    "tiny.wav": (write_bytes(b"RIFF" + bytes(16)), "unreadable"),
    "page.wav": (write_bytes(b"<!DOCTYPE html><html><body>404 not found</body></html>"), "unreadable"),
    "pointer.flac": (write_bytes(POINTER), "unreadable"),
    "no_samples.wav": (write(np.zeros(0, np.float32)), "too short: 0 samples"),
    "no_samples.flac": (write(np.zeros(0, np.float32)), "unreadable|too short"),
    "silence.wav": (write(np.zeros(SAMPLE_RATE, np.float32)), "silent"),
    "offset.wav": (write(np.full(SAMPLE_RATE, 0.5, np.float32)), "silent"),
    "one_sample.wav": (write(tone()[1:2]), "too short: 1 samples"),
    "under_one_frame.wav": (write(tone()[: MIN_SAMPLES - 1]), "too short: 399 samples"),
    "opposite.wav": (write(np.stack([tone(), -tone()], 1)), "channels cancel"),
    "video.m4a": (write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0" + bytes(4000)), "unreadable"),
    "stream.aac": (write_bytes(b"\xff\xf1\x50\x80\x2e\x7f\xfc\x21" * 500), "unreadable|format|silent|cut short"),
    "clip.webm": (write_bytes(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01" + bytes(4000)), "unreadable"),
    "clip.wma": (write_bytes(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(4000)), "unreadable"),
    "samples.pcm": (write_bytes((tone() * 2**15).astype("<i2").tobytes()), "headerless"),
    "samples.raw": (write_bytes((tone() * 2**15).astype("<i2").tobytes()), "headerless"),
    "missing.wav": (lambda path: None, "missing"),
    "slow.wav": (lambda path: soundfile.write(path, tone(), 100), "sample rate: 100 Hz"),
    "matlab.mat": (lambda path: soundfile.write(path, tone(), SAMPLE_RATE, format="MAT5"), "format: MAT5"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_audio_is_refused_with_its_reason(tmp_path, name):
    make, reason = BAD[name]
    make(tmp_path / name)
    with pytest.raises(AudioError, match=f"^({reason})"):
        read_audio(tmp_path / name)


def test_a_clip_of_exactly_the_receptive_field_is_read(tmp_path):
    soundfile.write(tmp_path / "short.wav", tone()[:MIN_SAMPLES], SAMPLE_RATE)
    assert len(read_audio(tmp_path / "short.wav")) == MIN_SAMPLES


def test_a_long_file_is_refused_by_its_header_before_it_is_decoded(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.flac", tone(3.0), SAMPLE_RATE)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    with pytest.raises(AudioError, match=r"^too long: 3.0 s is over 2 s"):
        read_audio(tmp_path / "long.flac", max_seconds=2.0)


def test_flac_keeps_sixteen_bits_exactly():
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 5000).astype(np.float32) / 2**15
    np.testing.assert_array_equal(decode_flac(encode_flac(samples)), samples)


def test_a_waveform_beyond_full_scale_is_scaled_and_not_clipped():
    decoded = decode_flac(encode_flac(tone(amplitude=4.0)))
    np.testing.assert_allclose(decoded, tone(amplitude=1.0), atol=1e-4)


def test_a_slice_of_flac_is_the_slice_of_the_waveform():
    data = encode_flac(tone(2.0))
    whole = decode_flac(data)
    row = np.zeros(6_789, np.float32)
    assert np.shares_memory(decode_flac(data, 12_345, row), row)
    np.testing.assert_array_equal(row, whole[12_345 : 12_345 + 6_789])
    np.testing.assert_array_equal(decode_flac(data, 12_345), whole[12_345:])


def test_what_is_shorter_than_its_row_leaves_the_rest_of_it_as_it_is():
    row = np.full(50_000, 9, np.float32)
    decoded = decode_flac(encode_flac(tone()), 6_000, row)
    assert len(decoded) == 10_000 and (row[10_000:] == 9).all()


def test_a_record_is_decoded_as_its_audio():
    data = encode_flac(tone())
    np.testing.assert_array_equal(decode_record({"id": "u0", "audio": data}, 12), decode_flac(data, 12))


FLAC = encode_flac(tone())


@pytest.mark.parametrize("data", [b"", b"not FLAC", FLAC[: len(FLAC) // 2], FLAC[:-10]])
def test_a_damaged_record_is_an_error_that_names_it(data):
    with pytest.raises(AudioError, match=r"^damaged: the audio of utterance 'u0' .*; prepare its corpus again$"):
        decode_record({"id": "u0", "audio": data})


def test_a_normalised_waveform_has_zero_mean_and_unit_variance():
    waveform = normalise(3 + tone())
    assert waveform.dtype == np.float32
    assert waveform.mean() == pytest.approx(0, abs=1e-4)
    assert waveform.var() == pytest.approx(1, abs=1e-3)


def test_normalising_silence_gives_zeros():
    np.testing.assert_array_equal(normalise(np.full(1000, 0.25, np.float32)), np.zeros(1000))


def test_reading_16_khz_audio_imports_neither_librosa_nor_jax():
    code = "import sys, w2v2_jax.data.audio; print([m for m in ('librosa', 'jax', 'tensorflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
