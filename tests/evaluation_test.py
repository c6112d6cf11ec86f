import json

import micro
import numpy as np
import pytest
import rich.console
from checkpointed import coarse_task, params_of

from w2v2_jax.data.audio import AudioError, decode_flac, encode_flac
from w2v2_jax.data.text import TextError
from w2v2_jax.decoding.scoring import Utterance
from w2v2_jax.decoding.segments import Segment
from w2v2_jax.evaluation import (
    WORDS,
    evaluate_recogniser,
    make_report,
    read_report,
    recognise,
    recognised,
    store_emissions,
)
from w2v2_jax.parts import SIZE, WorkError
from w2v2_jax.recognition import Recogniser, Transcript


class Parrot(Recogniser):
    """Says what was agreed on for clips of each length."""

    SAYS = {800: "AB CA", 1600: "CAB", 2400: "B B", 3200: ""}  # noqa: RUF012

    def transcribe(self, waveforms):
        for waveform in waveforms:
            words = tuple(Segment(word, 0.0, 0.0, 1.0) for word in self.SAYS[len(waveform)].split())
            yield Transcript(words, (), len(waveform) / 16_000, -1.0)


PARROT = Parrot(micro.ctc_task(), {}, normalise=False)


def record(name, num_samples, text):
    waveform = np.random.default_rng(0).normal(size=num_samples).astype(np.float32)
    return {
        "id": name,
        "text": text,
        "speaker": f"of {name}",
        "num_samples": num_samples,
        "audio": encode_flac(0.1 * waveform),
    }


# Heard as the parrot speaks, 5 words hold one error; so do their 11 characters.
RECORDS = [record("x", 2400, "B C"), record("y", 800, "AB CA"), record("z", 1600, "CAB")]


def test_rates_are_all_errors_over_all_words_and_characters():
    report = evaluate_recogniser(PARROT, [*RECORDS, record("w", 3200, "A")], progress=False)
    assert report.rates["words"].rate == pytest.approx(2 / 6)
    assert report.rates["characters"].rate == pytest.approx(2 / 12)
    assert report.seconds == (2400 + 800 + 1600 + 3200) / 16_000


def test_utterances_keep_the_order_of_the_records():
    report = evaluate_recogniser(PARROT, RECORDS, progress=False)
    assert report.utterances == (
        ("x", "B C", "B B", "of x", 0.15),
        ("y", "AB CA", "AB CA", "of y", 0.05),
        ("z", "CAB", "CAB", "of z", 0.1),
    )


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


def test_json_has_rates_and_every_hypothesis_and_is_read_back(tmp_path):
    report = evaluate_recogniser(PARROT, RECORDS, progress=False)
    (tmp_path / "report.json").write_text(report.to_json())
    fields = json.loads(report.to_json())
    assert fields["rates"]["words"]["rate"] == 0.2
    assert fields["rates"]["words"]["low"] <= 0.2 <= fields["rates"]["words"]["high"]
    assert fields["utterances"][0]["hypothesis"] == "B B"
    assert read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize("text", ["", "{}", '{"utterances": [{"id": 1}], "rates": {}}', "[1]"])
def test_a_file_that_is_no_report_is_an_error(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match="no report of an evaluation"):
        read_report(tmp_path / "other.json")


MANY = [record(f"{number}", 800 * (1 + number % 3), "AB CA") for number in range(2 * SIZE + 7)]


class Counting(Parrot):
    """A parrot that counts what it has heard, and may be interrupted."""

    heard = 0
    last = 10**9

    def transcribe(self, waveforms):
        for transcript in super().transcribe(waveforms):
            type(self).heard += 1
            if type(self).heard > type(self).last:
                raise KeyboardInterrupt
            yield transcript


def test_an_evaluation_that_was_interrupted_goes_on_with_the_part_it_was_at(tmp_path, monkeypatch):
    parrot = Counting(micro.ctc_task(), {}, normalise=False)
    monkeypatch.setattr(Counting, "heard", 0)
    monkeypatch.setattr(Counting, "last", SIZE + 5)
    with pytest.raises(KeyboardInterrupt):
        recognise(parrot, MANY, tmp_path, progress=False)
    monkeypatch.setattr(Counting, "heard", 0)
    monkeypatch.setattr(Counting, "last", 10**9)
    recognise(parrot, MANY, tmp_path, progress=False)
    assert Counting.heard == len(MANY) - SIZE
    assert make_report(recognised(MANY, tmp_path)) == evaluate_recogniser(PARROT, MANY, progress=False)


def test_processes_share_the_work(tmp_path):
    for index in (1, 0):
        recognise(PARROT, MANY, tmp_path, share=(index, 2), progress=False)
    assert make_report(recognised(MANY, tmp_path)) == evaluate_recogniser(PARROT, MANY, progress=False)


def test_work_of_another_checkpoint_or_corpus_is_not_mixed_in(tmp_path):
    recognise(PARROT, RECORDS, tmp_path, "one", progress=False)
    with pytest.raises(WorkError, match=r"another setting .one, not two"):
        recognise(PARROT, RECORDS, tmp_path, "two", progress=False)
    with pytest.raises(WorkError, match="or on another corpus"):
        recognise(PARROT, RECORDS[::-1], tmp_path, "one", progress=False)


def test_intervals_over_speakers_are_wider_where_speakers_differ():
    utterances = [
        Utterance(f"{speaker}{number}", "A B", "A B" if speaker < 3 else "C D", f"{speaker}", 1.0)
        for speaker in range(6)
        for number in range(20)
    ]
    over_utterances, over_speakers = (
        make_report(utterances, WORDS, speakers).rates["words"] for speakers in (False, True)
    )
    assert over_utterances.rate == over_speakers.rate == 0.5
    assert over_speakers.high - over_speakers.low > 2 * (over_utterances.high - over_utterances.low)


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


def test_emissions_are_computed_once_and_read_from_disk(tmp_path, monkeypatch):
    task = coarse_task()
    recogniser = Recogniser(task, params_of(task), normalise=True)
    stored = store_emissions(recogniser, RECORDS, tmp_path, progress=False)
    assert stored.places.tolist() == [1, 2, 0]  # from short to long
    expected = recogniser.emissions(decode_flac(record["audio"]) for record in (RECORDS[1], RECORDS[2], RECORDS[0]))
    for ours, theirs in zip(stored, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    monkeypatch.setattr(Recogniser, "emissions", None)
    again = store_emissions(recogniser, RECORDS, tmp_path, progress=False)
    np.testing.assert_array_equal(again[-1], stored[2])
