import json
import math
import re

import numpy as np
import pytest

from w2v2_jax.data.text import LETTERS, Vocabulary
from w2v2_jax.decoding.greedy import Decoded
from w2v2_jax.decoding.segments import (
    CUE_CHARACTERS,
    Segment,
    SegmentError,
    subtitles,
    symbol_segments,
    to_ctm,
    to_json,
    to_srt,
    to_textgrid,
    to_vtt,
    word_segments,
)

WORDS = (Segment("A", 0.5, 0.75, 0.9), Segment('SO-CALLED "CAT"', 0.75, 1.5, 0.8), Segment("Ä & <I>", 2.0, 2.25, 1.0))


def aligned(text, stops, scores):
    """As an alignment finds it, each label two frames long."""
    labels, stops = LETTERS.encode(text), np.array(stops)
    return Decoded(labels, stops - 2, stops, np.log(np.array(scores, np.float32)), score=0.0)


def read_textgrid(text):
    """Tiers by name as (text, start, end), by the rule that only numbers, strings and <flags> count, in their order."""
    tokens = iter(re.findall(r'"(?:[^"]|"")*"|<\w+>|(?<=[ \[])-?\d[\d.]*(?=\s|$)', text, re.MULTILINE))

    def string():
        return next(tokens)[1:-1].replace('""', '"')

    assert (string(), string()) == ("ooTextFile", "TextGrid")
    start, end, _, num_tiers = float(next(tokens)), float(next(tokens)), next(tokens), int(next(tokens))
    tiers = {}
    for _ in range(num_tiers):
        assert string() == "IntervalTier"
        name = string()
        assert (float(next(tokens)), float(next(tokens))) == (start, end)
        intervals = []
        for _ in range(int(next(tokens))):
            bounds = float(next(tokens)), float(next(tokens))
            intervals.append((string(), *bounds))
        tiers[name] = intervals
    assert list(tokens) == []
    return tiers


def test_a_word_lasts_from_its_first_label_to_its_last_and_scores_the_mean_of_their_frames():
    decoded = aligned("AN OX", [3, 6, 9, 20, 31, 40], [0.5] * 6)
    decoded.starts[1], decoded.label_scores[:2] = 3, np.log([0.25, 0.5])
    words = word_segments(decoded, LETTERS, 0.02)
    mean = math.exp((2 * math.log(0.25) + 3 * math.log(0.5)) / 5)
    assert words == (Segment("AN", 0.02, 0.12, round(mean, 4)), Segment("OX", 0.36, 0.62, 0.5))


def test_characters_leave_word_ends_out():
    segments = symbol_segments(aligned("AN OX", [3, 6, 9, 20, 31, 40], [0.5, 1, 0.1, 1, 1, 0.2]), LETTERS, 0.02)
    assert segments == (
        Segment("A", 0.02, 0.06, 0.5),
        Segment("N", 0.08, 0.12, 1.0),
        Segment("O", 0.36, 0.4, 1.0),
        Segment("X", 0.58, 0.62, 1.0),
    )


def test_phones_are_symbols_of_more_than_one_letter_and_the_words_where_no_mark_ends_one():
    phones = Vocabulary(("<s>", "sh", "iy"), specials=("<s>",), separator=" ")
    decoded = Decoded(np.array([1, 2]), np.array([0, 4]), np.array([4, 5]), np.zeros(2, np.float32), score=0.0)
    assert [segment.text for segment in symbol_segments(decoded, phones, 0.02)] == ["sh", "iy"]
    assert [segment.text for segment in word_segments(decoded, phones, 0.02)] == ["sh", "iy"]


def test_an_empty_transcript_has_no_segments():
    arguments = aligned("", np.zeros(0, int), []), LETTERS, 0.02
    assert (word_segments(*arguments), symbol_segments(*arguments), subtitles([])) == ((), (), ())


def test_a_word_end_without_a_word_is_no_segment():
    labels = np.array([LETTERS.word_end_id, LETTERS.ids["I"], LETTERS.word_end_id, LETTERS.word_end_id])
    frames = np.arange(4)
    words = word_segments(Decoded(labels, frames, frames + 1, np.zeros(4, np.float32), score=0.0), LETTERS, 0.02)
    assert words == (Segment("I", 0.02, 0.04, 1.0),)


def test_json_gives_back_what_went_in():
    found = json.loads(to_json({"words": WORDS, "characters": ()}, 3.0))
    assert found["seconds"] == 3.0
    assert tuple(Segment(**each) for each in found["words"]) == WORDS
    assert found["characters"] == []


def test_textgrid_gives_back_the_segments_and_silence_between_them():
    tiers = read_textgrid(to_textgrid({"words": WORDS, 'in "quotes"': ()}, 3.0))
    assert tiers == {
        "words": [
            ("", 0, 0.5),
            ("A", 0.5, 0.75),
            ('SO-CALLED "CAT"', 0.75, 1.5),
            ("", 1.5, 2.0),
            ("Ä & <I>", 2.0, 2.25),
            ("", 2.25, 3.0),
        ],
        'in "quotes"': [("", 0, 3.0)],
    }


def test_textgrid_of_a_filled_recording_has_no_silence():
    tiers = read_textgrid(to_textgrid({"words": [Segment("a", 0.0, 1e-5, 1.0), Segment("b", 1e-5, 2.0, 1.0)]}, 2.0))
    assert tiers == {"words": [("a", 0, 1e-5), ("b", 1e-5, 2)]}


@pytest.mark.parametrize("bounds", [[(0, 2), (1, 3)], [(1, 1)], [(2, 3), (0, 1)], [(0, 5)], [(-1, 1)]])
def test_textgrid_refuses_segments_without_a_place(bounds):
    with pytest.raises(SegmentError, match="tier 'words'"):
        to_textgrid({"words": [Segment("x", float(start), float(end), 1.0) for start, end in bounds]}, 4.0)


def test_textgrid_refuses_to_have_no_tier():
    with pytest.raises(SegmentError, match="without a tier"):
        to_textgrid({}, 1.0)


def test_ctm_has_six_fields_a_line_with_durations():
    lines = to_ctm([WORDS[0], WORDS[2]._replace(text="Ä")], "call-1", "A").splitlines()
    assert [line.split(" ") for line in lines] == [
        ["call-1", "A", "0.500", "0.250", "A", "0.9000"],
        ["call-1", "A", "2.000", "0.250", "Ä", "1.0000"],
    ]


@pytest.mark.parametrize(
    ("text", "recording"), [("two words", "a"), ("", "a"), (" x", "a"), ("x", "my file"), ("x", "")]
)
def test_ctm_refuses_white_space_within_a_field(text, recording):
    with pytest.raises(SegmentError, match="white space separates"):
        to_ctm([Segment(text, 0.0, 1.0, 1.0)], recording)


def test_subrip_numbers_its_cues_and_writes_milliseconds_after_a_comma():
    cues = [Segment("ONE\nTWO", 0.0, 59.9996, 1.0), Segment("THREE", 3661.5, 3662.0625, 1.0)]
    assert to_srt(cues) == ("1\n00:00:00,000 --> 00:01:00,000\nONE TWO\n\n2\n01:01:01,500 --> 01:01:02,062\nTHREE\n")


def test_webvtt_has_a_header_and_escapes_markup():
    assert to_vtt([Segment("A --> B & <I>", 0.0, 1.25, 1.0)]) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nA --&gt; B &amp; &lt;I&gt;\n"
    )


def test_no_cues_are_an_empty_file():
    assert (to_srt([]), to_vtt([])) == ("", "WEBVTT\n")


def test_words_that_fit_in_a_line_share_a_subtitle_as_sure_as_the_least_sure():
    assert subtitles([Segment("A", 0.0, 0.5, 0.9), Segment("B", 0.6, 1.0, 0.4), Segment("C", 1.0, 1.2, 0.8)]) == (
        Segment("A B C", 0.0, 1.2, 0.4),
    )


def test_subtitles_break_at_pauses_long_lines_and_long_times():
    words = [Segment("WORD", 0.5 * place, 0.5 * place + 0.25, 1.0) for place in range(60)]
    cues = subtitles(words)
    assert " ".join(cue.text for cue in cues) == " ".join(word.text for word in words)
    assert {len(cue.text) for cue in cues[:-1]} == {8 * 5 - 1}
    assert all(len(cue.text) <= CUE_CHARACTERS for cue in cues)

    slow = [Segment("A", 0.9 * place, 0.9 * place + 0.5, 1.0) for place in range(20)]
    assert [cue.end - cue.start <= 7 for cue in subtitles(slow)] == [True] * 3

    paused = [Segment("A", 0.0, 1.0, 1.0), Segment("B", 1.9, 2.5, 1.0), Segment("C", 3.5, 4.0, 1.0)]
    assert [cue.text for cue in subtitles(paused)] == ["A B", "C"]


def test_a_word_longer_than_a_line_stands_alone():
    words = [Segment(text, float(place), place + 0.5, 1.0) for place, text in enumerate(["A", "B" * 60, "C"])]
    assert [cue.text for cue in subtitles(words)] == ["A", "B" * 60, "C"]
