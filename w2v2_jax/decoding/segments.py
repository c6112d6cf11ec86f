"""Words, characters and phones with their times, and the files that other programs read them from."""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.greedy import Decoded

CUE_CHARACTERS = 42
"""Most characters of a subtitle, which is one line, unless a single word has more."""
CUE_SECONDS = 7.0
"""Longest time that one subtitle stands, unless a single word takes longer."""
CUE_PAUSE = 1.0
"""Seconds of silence after which a new subtitle begins."""


class SegmentError(ValueError):
    """Segments that a file format cannot hold."""


class Segment(NamedTuple):
    """What was said from `start` to `end`, in seconds, and how sure that is: a probability, 1 at most."""

    text: str
    start: float
    end: float
    score: float


def symbol_segments(decoded: Decoded, vocabulary: Vocabulary, seconds_per_frame: float) -> tuple[Segment, ...]:
    """One segment for each character or phone; marks of word ends are left out.

    Its score is the exponential of the label's mean log probability a frame.
    """
    written = [place for place, label in enumerate(decoded.labels) if label != vocabulary.word_end_id]
    return _segments([slice(place, place + 1) for place in written], decoded, vocabulary, seconds_per_frame)


def word_segments(decoded: Decoded, vocabulary: Vocabulary, seconds_per_frame: float) -> tuple[Segment, ...]:
    """One segment for each word, from its first label to its last.

    The score of a word is the geometric mean of the probabilities of its labels over all their frames. Where
    symbols are kept apart and no mark ends a word, as in phones, each symbol is a word.
    """
    if vocabulary.separator and not vocabulary.has_words:
        return symbol_segments(decoded, vocabulary, seconds_per_frame)
    labels = decoded.labels
    ends = np.flatnonzero(labels == vocabulary.word_end_id).tolist()
    bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(labels)], strict=True)
    pieces = [slice(first, last) for first, last in bounds if vocabulary.decode(labels[first:last])]
    return _segments(pieces, decoded, vocabulary, seconds_per_frame)


def subtitles(words: Iterable[Segment]) -> tuple[Segment, ...]:
    """Words joined into subtitles of one line; a subtitle is as sure as its least sure word.

    A new one begins after a pause of `CUE_PAUSE`, and where it would pass `CUE_CHARACTERS` or `CUE_SECONDS`.
    """
    cues: list[Segment] = []
    for word in words:
        if cues and _goes_on(cues[-1], word):
            last = cues.pop()
            word = Segment(f"{last.text} {word.text}", last.start, word.end, min(last.score, word.score))
        cues.append(word)
    return tuple(cues)


def to_json(tiers: Mapping[str, Sequence[Segment]], seconds: float) -> str:
    """An object of the length of the recording and the segments of each tier, say of "words" and "characters"."""
    named = {name: [segment._asdict() for segment in segments] for name, segments in tiers.items()}
    return json.dumps({"seconds": seconds, **named}, ensure_ascii=False, indent=2) + "\n"


def to_textgrid(tiers: Mapping[str, Sequence[Segment]], seconds: float) -> str:
    """Praat's TextGrid in its long text form: one interval tier for each of ours, silence as empty intervals.

    Raises:
        SegmentError: if segments of a tier overlap, are empty or reach beyond the recording, or if there is no tier.
    """
    if not tiers:
        raise SegmentError("a TextGrid without a tier cannot be opened; give it one, if only an empty one")
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {_decimal(seconds)}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, segments) in enumerate(tiers.items(), start=1):
        intervals = list(_without_gaps(name, segments, seconds))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += [
            "        xmin = 0",
            f"        xmax = {_decimal(seconds)}",
            f"        intervals: size = {len(intervals)}",
        ]
        for place, (text, start, end, _) in enumerate(intervals, start=1):
            lines += [f"        intervals [{place}]:", f"            xmin = {_decimal(start)}"]
            lines += [f"            xmax = {_decimal(end)}", f"            text = {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def to_ctm(segments: Iterable[Segment], recording: str, channel: str = "1") -> str:
    """NIST's time-marked conversation: a line of recording, channel, start, duration, word and confidence for each.

    Raises:
        SegmentError: for a field that is empty or has white space in it, which is what separates the fields.
    """
    lines = []
    for text, start, end, score in segments:
        for field in (recording, channel, text):
            if len(field.split()) != 1 or field != field.strip():
                raise SegmentError(f"white space separates the fields of a CTM file, so {field!r} can't be one of them")
        lines.append(f"{recording} {channel} {start:.3f} {end - start:.3f} {text} {score:.4f}\n")
    return "".join(lines)


def to_srt(cues: Iterable[Segment]) -> str:
    """SubRip subtitles, one for each of `cues`, white space within them as single spaces."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{' '.join(cue.text.split())}\n"
        for number, cue in enumerate(cues, start=1)
    ]
    return "\n".join(blocks)


def to_vtt(cues: Iterable[Segment]) -> str:
    """WebVTT subtitles, one for each of `cues`, white space within them as single spaces and markup escaped."""
    blocks = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(' '.join(cue.text.split()), quote=False)}\n"
        for cue in cues
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _segments(
    pieces: Sequence[slice], decoded: Decoded, vocabulary: Vocabulary, seconds_per_frame: float
) -> tuple[Segment, ...]:
    labels, starts, stops, scores = decoded[:4]
    frames = stops - starts
    return tuple(
        Segment(
            vocabulary.decode(labels[piece]),
            round(float(starts[piece][0]) * seconds_per_frame, 3),
            round(float(stops[piece][-1]) * seconds_per_frame, 3),
            round(float(np.exp(np.average(scores[piece], weights=frames[piece]))), 4),
        )
        for piece in pieces
    )


def _goes_on(cue: Segment, word: Segment) -> bool:
    fits = len(cue.text) + 1 + len(word.text) <= CUE_CHARACTERS and word.end - cue.start <= CUE_SECONDS
    return fits and word.start - cue.end < CUE_PAUSE


def _without_gaps(name: str, segments: Sequence[Segment], seconds: float) -> Iterator[Segment]:
    """The segments and, between them, empty ones, which together fill the recording."""
    reached = 0.0
    for segment in segments:
        if not reached <= segment.start < segment.end <= seconds:
            raise SegmentError(
                f"{segment.text!r} from {segment.start} to {segment.end} s in tier {name!r} overlaps what ends at "
                f"{reached} s, or the end of the recording at {seconds} s, or is empty; a TextGrid has no place for it"
            )
        if reached < segment.start:
            yield Segment("", reached, segment.start, 1.0)
        yield segment
        reached = segment.end
    if reached < seconds:
        yield Segment("", reached, seconds, 1.0)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _decimal(seconds: float) -> str:
    """Seconds as Praat reads them: without an exponent."""
    return np.format_float_positional(seconds, trim="-")


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
