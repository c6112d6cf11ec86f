import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from w2v2_jax.data.audio import encode_flac
from w2v2_jax.decoding.report_html import NUM_CONFUSIONS, report_html
from w2v2_jax.decoding.scoring import Score, Utterance

RATES = {"Word error rate": Score(0.1234, 0.1, 0.15), "Character <rate>": Score(0.05, 0.04, 0.06)}
VOID = {"meta"}


class Document(HTMLParser):
    """What a browser would make of a report: each element's attributes, and the texts in it."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def texts(self, tag, class_=""):
        """The text in each element of a tag, and of a class where one is given."""
        return [
            "".join(texts)
            for name, attributes, texts in self.elements
            if name == tag and (not class_ or class_ in attributes.get("class", "").split())
        ]

    def attributes(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]


def spoken(*pairs, speaker="", seconds=0.0):
    return [Utterance(f"utterance {number}", *pair, speaker, seconds) for number, pair in enumerate(pairs)]


UTTERANCES = spoken(("THE CAT SAT", "THE BAT SAT"), ("A B C", "A X Y Z"), ("ONE TWO", "ONE"), ("SO IT IS", "SO IT IS"))


def test_rates_stand_as_they_are_given():
    document = Document(report_html("title", RATES, UTTERANCES))
    assert document.texts("dt") == list(RATES)
    assert document.texts("dd") == [
        "12.34%",
        "10.00–15.00% in 95% of resamples",  # noqa: RUF001
        "5.00%",
        "4.00–6.00% in 95% of resamples",  # noqa: RUF001
    ]


def test_edits_are_summed_by_kind():
    document = Document(report_html("title", RATES, UTTERANCES))
    assert "5 errors" in document.texts("h2")
    assert document.texts("p", "legend") == ["3 substitutions 60%1 deletion 20%1 insertion 20%"]
    assert [each["style"] for each in document.attributes("div") if "flex" in each.get("style", "")] == [
        "flex:3",
        "flex:1",
        "flex:1",
    ]


def test_the_worst_utterances_are_aligned_from_the_worst_on():
    document = Document(report_html("title", RATES, UTTERANCES, num_worst=2))
    assert document.texts("h3")[-2:] == ["utterance 1", "utterance 0"]
    key, worst, second = document.texts("p", "aligned")
    assert second == "THE CATBAT SAT "
    assert worst.startswith("A ")
    assert "2 of 4 utterances hold 80% of all errors." in "".join(document.texts("p", "note"))
    assert document.texts("del")[-1:] == ["CAT"] and document.texts("ins")[-1:] == ["BAT"]
    assert key == "replacedwrong missed made up "


def test_a_missed_word_is_a_deletion_and_a_made_up_one_an_insertion():
    html = report_html("title", RATES, spoken(("A B", "A"), ("C", "C D"), ("E", "F")))
    edit = '<span class="edit {0}" title="{0}"><del>{1}</del><ins>{2}</ins></span>'
    for kind, said, heard in (("deletion", "B", ""), ("insertion", "", "D"), ("substitution", "E", "F")):
        assert edit.format(kind, said, heard) in html


def test_confusions_come_with_how_often_their_word_was_said():
    utterances = spoken(("A B", "A BE"), ("B B D", "BE B D D"), ("X Y Y Z", "X Y Z"))
    document = Document(report_html("title", RATES, utterances))
    assert document.texts("table", "confusions") == [
        "substitutionstimessaidB → BE23",
        "deletionstimessaidY12",
        "insertionstimessaidD11",
    ]


def test_no_more_confusions_are_shown_than_one_reads():
    words = " ".join(f"W{number}" for number in range(50))
    document = Document(report_html("title", RATES, spoken((words, ""))))
    assert document.texts("table", "confusions")[0].count("W") == NUM_CONFUSIONS


def test_a_perfect_recognition_has_neither_worst_utterances_nor_confusions():
    document = Document(report_html("title", RATES, spoken(("A B", "A B"), ("", ""))))
    assert document.texts("h2") == ["Where errors are"]
    assert document.texts("article") == []


def test_lengths_are_shown_always_and_durations_and_speakers_where_all_are_known():
    charts = ["Utterances by error rate", "Rate by length"]
    assert Document(report_html("title", RATES, spoken(("A", "A")))).texts("h3") == charts
    known = spoken(("A", "A"), ("B", "B"), speaker="x", seconds=1.5)
    document = Document(report_html("title", RATES, known))
    assert document.texts("h3") == [*charts, "Rate by duration", "Rate by speaker"]
    assert "2 utterances · 2 words · 0.1 minutes · 1 speaker" in document.texts("p", "note")
    partly = [*known, Utterance("unknown", "C", "C")]
    assert Document(report_html("title", RATES, partly)).texts("h3") == charts


HOSTILE = "<script>alert(1)</script> \"'>&amp; </style>"


def test_whatever_a_transcript_holds_is_text():
    utterances = [Utterance(HOSTILE, HOSTILE, "<img/src=x> </p>", HOSTILE, 1.0)]
    html = report_html(HOSTILE, {HOSTILE: RATES["Word error rate"]}, utterances, subtitle=HOSTILE)
    document = Document(html)
    assert not {"script", "img"} & {tag for tag, _, _ in document.elements}
    for tag in ("title", "h1", "dt", "h3"):
        assert HOSTILE in document.texts(tag)
    assert "<img/src=x>" in document.texts("ins")


def test_a_report_loads_nothing():
    html = report_html("title", RATES, UTTERANCES, audio=lambda utterance: FLAC)
    for tag, attributes, _ in Document(html).elements:
        assert tag not in {"link", "script", "iframe", "img", "object"}
        assert all(attributes[name].startswith("data:") for name in ("src", "href") if name in attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|url\(|@import", html)


FLAC = encode_flac((0.1 * np.sin(np.arange(1600) / 5)).astype(np.float32))


def test_only_the_worst_utterances_are_asked_for_their_sound():
    asked = []

    def audio(utterance):
        asked.append(utterance.id)
        return FLAC if utterance.id == "utterance 1" else b"RIFFwave"

    document = Document(report_html("title", RATES, UTTERANCES, audio=audio, num_worst=2))
    assert asked == ["utterance 1", "utterance 0"]
    flac, wav = (each["src"] for each in document.attributes("audio"))
    assert flac == f"data:audio/flac;base64,{base64.b64encode(FLAC).decode()}"
    assert wav == f"data:audio/wav;base64,{base64.b64encode(b'RIFFwave').decode()}"


def test_without_sound_there_are_no_players():
    assert Document(report_html("title", RATES, UTTERANCES)).attributes("audio") == []


def test_sound_that_is_neither_wav_nor_flac_is_refused():
    with pytest.raises(ValueError, match="audio of utterance 'utterance 1' begins with b'ID3x', which is neither"):
        report_html("title", RATES, UTTERANCES, audio=lambda utterance: b"ID3xxxxx")


def test_a_report_on_nothing_is_refused():
    with pytest.raises(ValueError, match="no utterances"):
        report_html("title", RATES, [])


def test_equal_evaluations_give_equal_reports():
    assert report_html("title", RATES, UTTERANCES) == report_html("title", RATES, UTTERANCES)
