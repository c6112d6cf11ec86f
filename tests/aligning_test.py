import flax.linen as nn
import jax
import micro
import numpy as np
import pytest
import soundfile
from checkpointed import coarse_task

from w2v2_jax.aligning import align_emissions, align_file
from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.chunks import Chunking
from w2v2_jax.decoding.alignment import AlignmentError
from w2v2_jax.recognition import Recogniser

TASK = coarse_task()
RECOGNISER = Recogniser(TASK, nn.unbox(jax.jit(TASK.init)(jax.random.key(0))), normalise=False)
HOP = RECOGNISER.hop / 16_000


def spoken(symbols):
    ids = [micro.VOCABULARY.blank_id if symbol == "_" else micro.VOCABULARY.ids[symbol] for symbol in symbols]
    return np.log(np.where(np.eye(len(micro.VOCABULARY))[ids] == 1, 0.9, 0.01)).astype(np.float32)


def test_words_and_letters_last_as_long_as_their_frames():
    found = align_emissions(RECOGNISER, spoken("_AAB|__C|"), "AB C", 9 * HOP)
    assert [(word.text, word.start, word.end) for word in found.words] == [
        ("AB", pytest.approx(HOP, abs=1e-3), pytest.approx(4 * HOP, abs=1e-3)),
        ("C", pytest.approx(7 * HOP, abs=1e-3), pytest.approx(8 * HOP, abs=1e-3)),
    ]
    assert [symbol.text for symbol in found.symbols] == ["A", "B", "C"]
    assert all(segment.score == pytest.approx(0.9, abs=1e-3) for segment in (*found.words, *found.symbols))
    assert found.log_prob == pytest.approx(9 * np.log(0.9), rel=1e-4)


def test_a_file_in_chunks_is_aligned_from_its_beginning_to_its_end(tmp_path):
    waveform = np.random.default_rng(0).normal(size=60_000).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", waveform, 16_000)
    found = align_file(RECOGNISER, tmp_path / "a.wav", "AB C", Chunking(1.0, 0.2))
    assert found.seconds == 3.75 and 0 <= found.words[0].start < found.words[1].end <= 3.75


@pytest.mark.parametrize(("text", "reason"), [(" ", "the transcript is empty"), ("A" * 9, "needs 18 frames")])
def test_a_transcript_that_does_not_fit_is_an_error(text, reason):
    with pytest.raises(AlignmentError, match=reason):
        align_emissions(RECOGNISER, spoken("_AAB|__C|"), text, 9 * HOP)


def test_a_file_that_can_not_be_read_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="missing: there is no file"):
        align_file(RECOGNISER, tmp_path / "missing.wav", "A")
