"""How well a trained model recognises a corpus: error rates with their intervals, and where it goes wrong."""

import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console, Group
from rich.progress import track
from rich.table import Table
from rich.text import Text

from w2v2_jax.data.audio import SAMPLE_RATE, Waveform, decode_record
from w2v2_jax.data.records import Records, Selection, columns
from w2v2_jax.data.text import TextError
from w2v2_jax.decoding.phones import count_phones, count_spoken_phones
from w2v2_jax.decoding.scoring import (
    Counts,
    Score,
    Utterance,
    by_speaker,
    count_characters,
    count_words,
    score,
    worst,
)
from w2v2_jax.parts import SIZE, Parts, written
from w2v2_jax.recognition import Emissions, Recogniser

Count = Callable[[str, str], Counts]

WORDS: Mapping[str, Count] = {"words": count_words, "characters": count_characters}
PHONES: Mapping[str, Count] = {"phones": count_phones, "phones without silence": count_spoken_phones}
"""TIMIT's: 61 phones folded to 39."""


class Report(NamedTuple):
    """Error rates, by what was counted, over all `utterances`, which last `seconds` together."""

    utterances: tuple[Utterance, ...]
    rates: dict[str, Score]

    @property
    def seconds(self) -> float:
        """How long the utterances last together."""
        return sum(utterance.seconds for utterance in self.utterances)

    def table(self, title: str, num_worst: int = 5) -> Group:
        """The report for a terminal, with the utterances that have most word errors."""
        rates = Table("", "rate", "95 % interval", title=Text(title), title_justify="left")
        for name, rate in self.rates.items():
            rates.add_row(name, *_percent(rate))
        rates.caption = f"{len(self.utterances)} utterances, {self.seconds / 60:.1f} minutes"
        examples = Table("errors", "reference", "hypothesis", show_lines=True)
        for utterance, counts in worst(self.utterances, num_worst):
            errors = f"{counts.errors} of {counts.reference_length}"
            examples.add_row(errors, Text(utterance.reference), Text(utterance.hypothesis))
        return Group(rates, examples)

    def to_json(self) -> str:
        """Everything, each utterance with its reference and hypothesis; `read_report` reads it."""
        rates = {name: rate._asdict() for name, rate in self.rates.items()}
        utterances = [utterance._asdict() for utterance in self.utterances]
        fields = {"seconds": self.seconds, "rates": rates, "utterances": utterances}
        return json.dumps(fields, ensure_ascii=False, indent=1)


def read_report(path: str | Path) -> Report:
    """The report in a file that `to_json` gave; ValueError for another file."""
    try:
        fields = json.loads(Path(path).read_text("utf-8"))
        utterances = tuple(Utterance(**utterance) for utterance in fields["utterances"])
        return Report(utterances, {name: Score(**rate) for name, rate in fields["rates"].items()})
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no report of an evaluation: {error}; give what `--output` wrote") from error


def make_report(
    utterances: Sequence[Utterance], counted: Mapping[str, Count] = WORDS, speakers: bool = False
) -> Report:
    """The rates of what was recognised; with `speakers` the intervals are for other speakers, see `by_speaker`.

    Raises ValueError where all references are empty.
    """

    def rate(count: Count) -> Score:
        counts = [count(each.reference, each.hypothesis) for each in utterances]
        return score([*by_speaker(utterances, counts).values()] if speakers else counts)

    return Report(tuple(utterances), {name: rate(count) for name, count in counted.items()})


def check_references(records: Records, counted: Mapping[str, Count]) -> None:
    """Raises ValueError for a text in which something can't be counted, such as phones in words."""
    for name, text in zip(*columns(records, "id", "text"), strict=True):
        for count in counted.values():
            try:
                count(text, "")
            except ValueError as error:
                raise ValueError(f"utterance {name!r}: {error}") from error


def recognise(
    recogniser: Recogniser,
    records: Records,
    folder: Path,
    setting: str = "",
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> None:
    """Recognises a corpus and keeps what was recognised in `folder`, part by part.

    Parts that are there already are not done again, so an evaluation that was killed goes on where it was. `share`
    (i, n) does every nth part from the ith on: n processes that see the same folder do all of them. `setting` says
    what hypotheses depend on besides the corpus, such as the checkpoint.

    Raises:
        TextError: for a text that the recogniser can't write, such as small letters where it writes capitals: such
            errors would say nothing of the recognition.
        AudioError: for a damaged recording.
        WorkError: for a folder with parts of another corpus or setting.
    """
    ids, texts, num_samples = columns(records, "id", "text", "num_samples")
    for name, text in zip(ids, texts, strict=True):
        _check_spelling(recogniser, name, text)
    parts = Parts(folder, ids, num_samples, setting)
    for part in _shown(parts.missing(share), "recognising", progress):
        found = recogniser.transcribe(_waveforms(Selection(records, parts.places(part))))
        with written(parts.file(part)) as unfinished:
            unfinished.write_text(json.dumps([each.text for each in found], ensure_ascii=False), encoding="utf-8")


def recognised(records: Records, folder: Path, setting: str = "") -> tuple[Utterance, ...]:
    """What `recognise` kept in a folder, in the order of the records; all of its parts have to be there."""
    ids, texts, speakers, num_samples = columns(records, "id", "text", "speaker", "num_samples")
    parts = Parts(folder, ids, num_samples, setting)
    hypotheses = np.empty(len(ids), object)
    for part in range(len(parts)):
        hypotheses[parts.places(part)] = json.loads(parts.file(part).read_text("utf-8"))
    seconds = (num_samples / SAMPLE_RATE).tolist()
    return tuple(map(Utterance, ids, texts, hypotheses, speakers, seconds))


def evaluate_recogniser(
    recogniser: Recogniser, records: Records, counted: Mapping[str, Count] = WORDS, progress: bool = True
) -> Report:
    """Recognises all `records` in this process and compares with their texts as they stand; raises as `recognise`."""
    with tempfile.TemporaryDirectory() as folder:
        recognise(recogniser, records, Path(folder), progress=progress)
        return make_report(recognised(records, Path(folder)), counted)


class StoredEmissions(Sequence[Emissions]):
    """Emissions of a corpus on disk, from its shortest utterance to its longest; `places` says where each stands."""

    def __init__(self, parts: Parts):
        self.places = np.array([place for part in range(len(parts)) for place in parts.places(part)], np.int64)
        self._parts = parts

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Emissions:
        part, place = divmod(range(len(self))[number], SIZE)
        return self._part(part)[place]

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def _part(self, part: int) -> list[Emissions]:
        with np.load(self._parts.file(part)) as arrays:
            return [arrays[f"arr_{number}"] for number in range(len(arrays))]


def store_emissions(
    recogniser: Recogniser, records: Records, folder: Path, setting: str = "", progress: bool = True
) -> StoredEmissions:
    """Emissions of a corpus, computed once and kept in `folder`; see `recognise`."""
    parts = Parts(folder, *columns(records, "id", "num_samples"), setting)
    for part in _shown(parts.missing(), "emissions", progress):
        found = list(recogniser.emissions(_waveforms(Selection(records, parts.places(part)))))
        with written(parts.file(part)) as unfinished, unfinished.open("wb") as file:
            np.savez(file, *found)
    return StoredEmissions(parts)


def _check_spelling(recogniser: Recogniser, name: str, text: str) -> None:
    try:
        recogniser.vocabulary.encode(text)
    except TextError as error:
        raise TextError(f"utterance {name!r}: {error}") from error


def _waveforms(records: Records) -> Iterator[Waveform]:
    return (decode_record(records[index]) for index in range(len(records)))


def _shown(parts: Sequence[int], what: str, progress: bool) -> Iterator[int]:
    return track(parts, what, console=Console(stderr=True, quiet=not progress))


def _percent(rate: Score) -> tuple[str, str]:
    return f"{rate.rate:.2%}", f"{rate.low:.2%} to {rate.high:.2%}"
