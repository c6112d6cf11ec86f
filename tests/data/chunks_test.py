import numpy as np
import pytest
import soundfile
from transformers import Wav2Vec2FeatureExtractor
from transformers.pipelines.automatic_speech_recognition import chunk_iter, rescale_stride

from w2v2_jax.data.audio import AudioError, read_audio, read_blocks
from w2v2_jax.data.chunks import Chunking
from w2v2_jax.frames import PAPER_CONV_LAYERS, num_frames

HOP = 320
EXTRACTOR = Wav2Vec2FeatureExtractor(do_normalize=False)


def noise(num_samples):
    return np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def blocks(waveform, size):
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


@pytest.mark.parametrize("seconds, stride", [(2.0, 0.4), (1.0, 0.25), (3.0, 0.1)])
@pytest.mark.parametrize("num_samples", [16_000, 32_000, 32_001, 48_321, 100_000])
def test_chunks_and_the_frames_that_are_kept_are_those_of_transformers(seconds, stride, num_samples):
    waveform = noise(num_samples)
    found = list(Chunking(seconds, stride).cut(blocks(waveform, 7000), HOP))
    size, side = (round(each * 16_000 / HOP) * HOP for each in (seconds, stride))
    theirs = list(chunk_iter(waveform, EXTRACTOR, size, side, side))
    assert len(found) == len(theirs)
    for chunk, their in zip(found, theirs, strict=True):
        np.testing.assert_array_equal(chunk.waveform, their["input_values"][0])
        (total, left, right), *_ = rescale_stride([their["stride"]], 1 / HOP)
        frames = range(num_frames(len(chunk.waveform), PAPER_CONV_LAYERS))
        assert frames[chunk.first : chunk.stop] == frames[left : total - right]


@pytest.mark.parametrize("num_samples", [33_000, 100_000, 480_400])
def test_every_frame_of_the_whole_recording_is_kept_once(num_samples):
    kept = []
    for chunk in Chunking(2.0, 0.4).cut([noise(num_samples)], HOP):
        frames = np.arange(num_frames(len(chunk.waveform), PAPER_CONV_LAYERS)) + chunk.start // HOP
        kept.extend(frames[chunk.first : chunk.stop])
    assert kept == list(range(num_frames(num_samples, PAPER_CONV_LAYERS)))


def test_no_more_than_a_chunk_and_a_block_are_held():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1000
            yield noise(1000)

    chunk = next(Chunking(2.0, 0.4).cut(endless(), HOP))
    assert len(chunk.waveform) == 32_000 and read == 33_000


@pytest.mark.parametrize("seconds, stride", [(1.0, 0.5), (1.0, 0.0), (0.0, 0.0), (1.0, -1.0)])
def test_chunks_that_do_not_overlap_or_do_nothing_else_are_an_error(seconds, stride):
    with pytest.raises(ValueError, match="give a stride above 0 and less than half a chunk"):
        Chunking(seconds, stride)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_blocks_of_a_file_are_the_whole_file(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.stack([noise(5 * rate), 0.5 * noise(5 * rate)], 1), rate)
    whole, joined = (
        read_audio(tmp_path / "a.wav"),
        np.concatenate(list(read_blocks(tmp_path / "a.wav", block_seconds=1))),
    )
    assert len(joined) == len(whole) == 80_000
    np.testing.assert_allclose(joined, whole, atol=1e-4)


def test_a_long_file_that_is_cut_short_gives_its_chunks_and_then_an_error(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(60 * 16_000), 16_000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) * 2 // 3])
    found = Chunking(5.0, 1.0).read(tmp_path / "a.flac", HOP)
    assert next(found).start == 0
    with pytest.raises(AudioError, match=r"unreadable|cut short"):
        list(found)


def test_a_long_file_of_silence_is_an_error(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(20 * 16_000), 16_000)
    with pytest.raises(AudioError, match="silent"):
        list(Chunking(5.0, 1.0).read(tmp_path / "a.wav", HOP))
