"""How well a trained model recognises a corpus: error rates with their intervals, and where it goes wrong."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from rich.console import Console, Group
from rich.progress import track
from rich.table import Table
from rich.text import Text

from w2v2_jax.data.audio import SAMPLE_RATE, Waveform, decode_record
from w2v2_jax.data.records import Records, Selection, without_audio
from w2v2_jax.data.text import TextError
from w2v2_jax.decoding.scoring import Score, Utterance, count_characters, count_words, score, worst
from w2v2_jax.recognition import Recogniser


class Report(NamedTuple):
    """Error rates over all `utterances`, which last `seconds` together."""

    utterances: tuple[Utterance, ...]
    seconds: float
    word_error_rate: Score
    character_error_rate: Score

    def table(self, title: str, num_worst: int = 5) -> Group:
        """The report for a terminal, with the utterances that have most word errors."""
        rates = Table("", "rate", "95 % interval", title=Text(title), title_justify="left")
        rates.add_row("words", *_percent(self.word_error_rate))
        rates.add_row("characters", *_percent(self.character_error_rate))
        rates.caption = f"{len(self.utterances)} utterances, {self.seconds / 60:.1f} minutes"
        examples = Table("errors", "reference", "hypothesis", show_lines=True)
        for utterance, counts in worst(self.utterances, num_worst):
            errors = f"{counts.errors} of {counts.reference_length}"
            examples.add_row(errors, Text(utterance.reference), Text(utterance.hypothesis))
        return Group(rates, examples)

    def to_json(self) -> str:
        """Everything, each utterance with its reference and hypothesis."""
        rates = {name: getattr(self, name)._asdict() for name in ("word_error_rate", "character_error_rate")}
        utterances = [utterance._asdict() for utterance in self.utterances]
        return json.dumps({"seconds": self.seconds, **rates, "utterances": utterances}, ensure_ascii=False, indent=1)


def evaluate_recogniser(recogniser: Recogniser, records: Records, progress: bool = True) -> Report:
    """Recognises all `records` by greedy decoding and compares with their texts as they stand.

    Raises:
        TextError: for a text that the recogniser can't write, such as small letters where it writes capitals: such
            errors would say nothing of the recognition.
        AudioError: for a damaged recording.
        ValueError: where all texts are empty.
    """
    known = without_audio(records)
    for record in known:
        _check_spelling(recogniser, record["id"], record["text"])
    # From short to long, so that clips that are transcribed together need little padding.
    order = np.argsort([record["num_samples"] for record in known], kind="stable")
    shown = track(_waveforms(Selection(records, order)), "recognising", len(known), console=_console(progress))
    hypotheses = {int(place): each.text for place, each in zip(order, recogniser.transcribe(shown), strict=True)}
    utterances = tuple(Utterance(record["id"], record["text"], hypotheses[place]) for place, record in enumerate(known))
    return Report(
        utterances,
        sum(record["num_samples"] for record in known) / SAMPLE_RATE,
        score([count_words(each.reference, each.hypothesis) for each in utterances]),
        score([count_characters(each.reference, each.hypothesis) for each in utterances]),
    )


def _check_spelling(recogniser: Recogniser, name: str, text: str) -> None:
    try:
        recogniser.task.vocabulary.encode(text)
    except TextError as error:
        raise TextError(f"utterance {name!r}: {error}") from error


def _waveforms(records: Records) -> Iterator[Waveform]:
    return (decode_record(records[index]) for index in range(len(records)))


def _console(progress: bool) -> Console:
    return Console(stderr=True, quiet=not progress)


def _percent(rate: Score) -> tuple[str, str]:
    return f"{rate.rate:.2%}", f"{rate.low:.2%} to {rate.high:.2%}"
