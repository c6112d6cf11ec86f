"""When each word of a known transcript was spoken: forced alignment of recordings of any length."""

from pathlib import Path
from typing import NamedTuple

from w2v2_jax.data.audio import SAMPLE_RATE, AudioError
from w2v2_jax.data.chunks import Chunking
from w2v2_jax.decoding.alignment import AlignmentError, check_fits
from w2v2_jax.decoding.searched import place
from w2v2_jax.decoding.segments import Segment, symbol_segments, word_segments
from w2v2_jax.recognition import CHUNKING, Emissions, Recogniser


class Aligned(NamedTuple):
    """The words and symbols (letters or phones) of a recording of `seconds` with their times, and the log probability
    of the best path that spells them, in nats."""

    words: tuple[Segment, ...]
    symbols: tuple[Segment, ...]
    seconds: float
    log_prob: float


def align_file(recogniser: Recogniser, file: str | Path, text: str, chunking: Chunking = CHUNKING) -> Aligned:
    """The alignment of an audio file with its transcript, which is written in the recogniser's letters.

    Raises:
        AudioError: for a file that can't be read.
        TextError: for a character that the recogniser can't write.
        AlignmentError: for an empty transcript, and one that is too long for the recording.
    """
    [((_, seconds), emissions)] = recogniser.emissions_of_files([file], chunking)
    if isinstance(emissions, AudioError):
        raise emissions
    return align_emissions(recogniser, emissions, text, seconds)


def align_emissions(recogniser: Recogniser, emissions: Emissions, text: str, seconds: float) -> Aligned:
    """The alignment of what a recogniser makes of a recording with its transcript; raises as `align_file` does."""
    labels = recogniser.vocabulary.encode(text)
    if not len(labels):
        raise AlignmentError("the transcript is empty; give what was said")
    seconds_per_frame = recogniser.hop / SAMPLE_RATE
    check_fits(labels, len(emissions), seconds_per_frame)
    found = place(emissions, labels, recogniser.vocabulary.blank_id)
    words = word_segments(found, recogniser.vocabulary, seconds_per_frame)
    symbols = symbol_segments(found, recogniser.vocabulary, seconds_per_frame)
    return Aligned(words, symbols, seconds, found.score)
