"""A report of an evaluation to read in a browser: one file that loads nothing, for screens and for paper."""

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from w2v2_jax.decoding.markup import element, page
from w2v2_jax.decoding.report_charts import histogram, interval, rates_along, rates_of
from w2v2_jax.decoding.report_style import STYLE
from w2v2_jax.decoding.scoring import Counts, Score, Utterance, total
from w2v2_jax.decoding.word_alignment import Alignment, Confusions, Pair, align_words, confusions, count_pairs

NUM_CONFUSIONS = 12
MEDIA_TYPES = {b"fLaC": "audio/flac", b"RIFF": "audio/wav"}
KINDS = ("substitution", "deletion", "insertion")
"""In the order of `Counts`."""

FOOTNOTE = (
    "A rate is all edits over all reference words, never a mean of rates. Intervals hold 95% of bootstrap resamples "
    "(Bisani & Ney 2004). Words are aligned with the fewest edits and, where several alignments have as few, such that "
    "words which replace each other are most alike."
)


class Aligned(NamedTuple):
    """An utterance with its alignment and the edits in it."""

    utterance: Utterance
    alignment: Alignment
    counts: Counts


def no_audio(utterance: Utterance) -> bytes:
    """For reports without players."""
    return b""


def report_html(
    title: str,
    rates: Mapping[str, Score],
    utterances: Sequence[Utterance],
    subtitle: str = "",
    audio: Callable[[Utterance], bytes] = no_audio,
    num_worst: int = 20,
) -> str:
    """The report as an HTML document, to be written as UTF-8.

    Shows `rates` by their names as they are given, then how the words of `utterances` were recognised: what kinds of
    errors there are, where they are (by length, and by duration and speaker where all are known), the `num_worst`
    utterances with most errors as aligned words, and the most frequent confusions. For phones give utterances that
    are `folded`. `audio` gives the WAV or FLAC file of an utterance, or no bytes; it is called for the worst ones
    alone, whose sound becomes part of the document.

    Raises ValueError if there are no utterances, and for audio that is neither WAV nor FLAC.
    """
    if not utterances:
        raise ValueError("there are no utterances to report on; evaluate at least one")
    aligned = [_aligned(utterance) for utterance in utterances]
    corpus = total([each.counts for each in aligned])
    body = element(
        "body",
        element("header", element("h1", title), _note(subtitle), _note(_extent(aligned, corpus))),
        element(
            "main",
            element("section", element("dl", *itertools.starmap(_rate, rates.items()), class_="rates")),
            *_kinds(corpus),
            element("section", _header("Where errors are", ""), element("div", *_charts(aligned), class_="panels")),
            *_worst(aligned, corpus, audio, num_worst),
            *_confusions(confusions(each.alignment for each in aligned)),
        ),
        element("footer", _note(FOOTNOTE)),
    )
    return page(title, STYLE, body)


def _aligned(utterance: Utterance) -> Aligned:
    alignment = align_words(utterance.reference, utterance.hypothesis)
    return Aligned(utterance, alignment, count_pairs(alignment))


def _extent(aligned: Sequence[Aligned], corpus: Counts) -> str:
    speakers = {each.utterance.speaker for each in aligned} - {""}
    minutes = sum(each.utterance.seconds for each in aligned) / 60
    facts = {
        _amount(len(aligned), "utterance"): True,
        _amount(corpus.reference_length, "word"): True,
        f"{minutes:,.1f} minutes": minutes,
        _amount(len(speakers), "speaker"): speakers,
    }
    return " · ".join(fact for fact, known in facts.items() if known)


def _rate(name: str, rate: Score) -> Element:
    spread = f"{interval(rate.low, rate.high, 2)} in 95% of resamples"
    return element("div", element("dt", name), element("dd", f"{rate.rate:.2%}"), element("dd", spread))


def _kinds(corpus: Counts) -> Iterator[Element]:
    """Of what kinds the errors are, as a bar in parts."""
    if not corpus.errors:
        return
    kinds = list(zip(KINDS, corpus[:3], strict=True))
    bar = [element("div", class_=kind, style=f"flex:{count}") for kind, count in kinds if count]
    legend = [
        element("span", element("b", _amount(count, kind)), f" {count / corpus.errors:.0%}", class_=kind)
        for kind, count in kinds
    ]
    yield element(
        "section",
        _header(_amount(corpus.errors, "error"), ""),
        element("div", *bar, class_="mixture"),
        element("p", *legend, class_="legend"),
    )


def _charts(aligned: Sequence[Aligned]) -> Iterator[Element]:
    counts = [each.counts for each in aligned]
    line = "the line is the rate of all"
    yield histogram(counts)
    words = np.array([count.reference_length for count in counts])
    yield rates_along("Rate by length", f"reference words in an utterance; {line}", counts, words)
    seconds = np.array([round(each.utterance.seconds, 1) for each in aligned])
    if seconds.all():
        yield rates_along("Rate by duration", f"seconds of an utterance; {line}", counts, seconds)
    speakers = [each.utterance.speaker for each in aligned]
    if all(speakers):
        yield rates_of("Rate by speaker", f"intervals over a speaker's utterances; {line}", counts, speakers)


def _worst(
    aligned: Sequence[Aligned], corpus: Counts, audio: Callable[[Utterance], bytes], num_worst: int
) -> Iterator[Element]:
    wrong = [each for each in aligned if each.counts.errors]
    worst = sorted(wrong, key=lambda each: each.counts.errors, reverse=True)[:num_worst]
    if not worst:
        return
    share = sum(each.counts.errors for each in worst) / corpus.errors
    note = (
        f"{len(worst)} of {len(aligned):,} utterances hold {share:.0%} of all errors. "
        "What was said is on the line, what was heard instead below it."
    )
    legend = (Pair("replaced", "wrong"), Pair("missed", ""), Pair("", "made up"))
    key = element("p", *_words(legend), class_="aligned key")
    yield element("section", _header("Most errors", note), key, *(_card(each, audio(each.utterance)) for each in worst))


def _card(aligned: Aligned, audio: bytes) -> Element:
    utterance, counts = aligned.utterance, aligned.counts
    facts = {
        f"{_amount(counts.errors, 'error')} in {_amount(counts.reference_length, 'word')}": True,
        f"{utterance.seconds:.1f} s": utterance.seconds,
        f"speaker {utterance.speaker}": utterance.speaker,
    }
    about = " · ".join(fact for fact, known in facts.items() if known)
    return element(
        "article",
        element("header", element("h3", utterance.id), _note(about)),
        element("p", *_words(aligned.alignment), class_="aligned", dir="auto", translate="no"),
        *_player(utterance, audio),
        class_="utterance",
    )


def _words(alignment: Alignment) -> Iterator[Element | str]:
    """The words said; those that were not heard as they were said with what was heard."""
    for said, heard in alignment:
        if said == heard:
            yield f"{said} "
        else:
            kind = KINDS[1] if not heard else KINDS[2] if not said else KINDS[0]
            yield element("span", element("del", said), element("ins", heard), class_=f"edit {kind}", title=kind)
            yield " "


def _player(utterance: Utterance, audio: bytes) -> Iterator[Element]:
    if not audio:
        return
    if audio[:4] not in MEDIA_TYPES:
        raise ValueError(
            f"the audio of utterance {utterance.id!r} begins with {audio[:4]!r}, which is neither WAV nor FLAC; "
            "give the bytes of a file of either"
        )
    source = f"data:{MEDIA_TYPES[audio[:4]]};base64,{base64.b64encode(audio).decode()}"
    yield element("audio", controls="", preload="metadata", src=source)


def _confusions(found: Confusions) -> Iterator[Element]:
    """The most frequent errors of each kind, with how often the word was said."""
    rows = (
        [(pair, count, found.said[pair.reference]) for pair, count in found.substitutions.most_common(NUM_CONFUSIONS)],
        [((word,), count, found.said[word]) for word, count in found.deletions.most_common(NUM_CONFUSIONS)],
        [((word,), count, found.said[word]) for word, count in found.insertions.most_common(NUM_CONFUSIONS)],
    )
    tables = [_confusion_table(kind, each) for kind, each in zip(KINDS, rows, strict=True) if each]
    if tables:
        note = "How often an error was made, and how often its word was said at all."
        yield element("section", _header("Most frequent", note), element("div", *tables, class_="thirds"))


def _confusion_table(kind: str, rows: Sequence[tuple[tuple[str, ...], int, int]]) -> Element:
    names = [element("th", name, scope="col") for name in (f"{kind}s", "times", "said")]
    lines = [
        element(
            "tr", element("th", *_arrow(words), scope="row"), element("td", f"{count:,}"), element("td", f"{said:,}")
        )
        for words, count, said in rows
    ]
    body = element("tbody", *lines, translate="no")
    return element("table", element("thead", element("tr", *names)), body, class_=f"confusions {kind}")


def _arrow(words: Sequence[str]) -> Iterator[Element | str]:
    """An arrow from word to word, whichever way they are written."""
    yield element("bdi", words[0])
    for word in words[1:]:
        yield " → "
        yield element("bdi", word)


def _header(title: str, note: str) -> Element:
    return element("header", element("h2", title), _note(note))


def _note(text: str) -> Element:
    return element("p", text, class_="note")


def _amount(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
