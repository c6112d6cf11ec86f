import json

import micro
import numpy as np
import pytest
import rich.console
from checkpointed import coarse_task, params_of

from w2v2_jax.data.audio import AudioError, decode_flac, encode_flac
from w2v2_jax.data.text import TextError
from w2v2_jax.evaluation import evaluate_recogniser
from w2v2_jax.recognition import Recogniser, Transcript, Word


class Parrot(Recogniser):
    """Says what was agreed on for clips of each length."""

    SAYS = {800: "AB CA", 1600: "CAB", 2400: "B B", 3200: ""}  # noqa: RUF012

    def transcribe(self, waveforms):
        for waveform in waveforms:
            words = tuple(Word(word, 0.0, 0.0) for word in self.SAYS[len(waveform)].split())
            yield Transcript(words, len(waveform) / 16_000, -1.0)


PARROT = Parrot(micro.ctc_task(), {}, normalise=False)


def record(name, num_samples, text):
    waveform = np.random.default_rng(0).normal(size=num_samples).astype(np.float32)
    return {"id": name, "text": text, "num_samples": num_samples, "audio": encode_flac(0.1 * waveform)}


# Heard as the parrot speaks, 5 words hold one error; so do their 11 characters.
RECORDS = [record("x", 2400, "B C"), record("y", 800, "AB CA"), record("z", 1600, "CAB")]


def test_rates_are_all_errors_over_all_words_and_characters():
    report = evaluate_recogniser(PARROT, [*RECORDS, record("w", 3200, "A")], progress=False)
    assert report.word_error_rate.rate == pytest.approx(2 / 6)
    assert report.character_error_rate.rate == pytest.approx(2 / 12)
    assert report.seconds == (2400 + 800 + 1600 + 3200) / 16_000


def test_utterances_keep_the_order_of_the_records():
    report = evaluate_recogniser(PARROT, RECORDS, progress=False)
    assert report.utterances == (("x", "B C", "B B"), ("y", "AB CA", "AB CA"), ("z", "CAB", "CAB"))


def test_the_table_shows_the_worst_utterance_first_and_brackets_as_they_are():
    says = evaluate_recogniser(PARROT, RECORDS, progress=False)
    report = says._replace(utterances=(*says.utterances, says.utterances[0]._replace(id="v", hypothesis="[b] A A")))
    console = rich.console.Console(width=100)
    with console.capture() as capture:
        console.print(report.table("here"))
    shown = capture.get()
    assert "16.67%" not in shown and "20.00%" in shown  # 1 of 5 words
    assert shown.index("[b] A A") < shown.index("B B")
    assert "4 utterances" in shown


def test_json_has_rates_and_every_hypothesis():
    fields = json.loads(evaluate_recogniser(PARROT, RECORDS, progress=False).to_json())
    assert fields["word_error_rate"]["rate"] == 0.2
    assert fields["word_error_rate"]["low"] <= 0.2 <= fields["word_error_rate"]["high"]
    assert fields["utterances"][0] == {"id": "x", "reference": "B C", "hypothesis": "B B"}


def test_a_text_that_the_recogniser_cannot_write_is_an_error_that_names_utterance_and_place():
    with pytest.raises(TextError, match="utterance 'u': character 'b' at position 1 of 'Ab'"):
        evaluate_recogniser(PARROT, [*RECORDS, record("u", 800, "Ab")], progress=False)


def test_a_damaged_recording_is_an_error_that_names_the_utterance():
    with pytest.raises(AudioError, match="the audio of utterance 'u'"):
        evaluate_recogniser(PARROT, [*RECORDS, record("u", 800, "AB") | {"audio": b"not FLAC"}], progress=False)


def test_a_corpus_without_any_text_is_an_error():
    with pytest.raises(ValueError, match="references of all 1 utterances are empty"):
        evaluate_recogniser(PARROT, [record("u", 800, "")], progress=False)


def test_a_recogniser_is_given_every_record_whatever_its_length():
    task = coarse_task()
    recogniser = Recogniser(task, params_of(task), normalise=True)
    report = evaluate_recogniser(recogniser, RECORDS, progress=False)
    waveforms = [decode_flac(record["audio"]) for record in RECORDS]
    assert [each.hypothesis for each in report.utterances] == [t.text for t in recogniser.transcribe(waveforms)]
