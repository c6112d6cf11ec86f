import dataclasses
import json

import numpy as np
import pytest
from exhaustive import ARPA, LABELS, random_log_probs

from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import NGramFile, NoModel
from w2v2_jax.decoding.lexicon import lexicon_of_words
from w2v2_jax.decoding.scoring import count_words, total
from w2v2_jax.decoding.tuning import LM_WEIGHTS, WORD_SCORES, RecordError, run_trials, tune

CLIPS = [random_log_probs(seed, num_frames=20) for seed in range(8)]
NUM_TRIALS = 14  # more than Optuna draws without guidance


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.arpa"
    path.write_text(ARPA)
    return BeamSearch(LABELS, NGramFile(path), lexicon_of_words(["A", "AB", "BB"], LABELS), beam=20)


@pytest.fixture(scope="module")
def references(search):
    """What is recognised with some weights, so that tuning has these to find."""
    hidden = search.reweighted(Weights(0.5, 2.5))
    return [hidden.decode(clip)[0].text for clip in CLIPS]


@pytest.fixture(scope="module")
def unbroken(search, references, tmp_path_factory):
    record = tmp_path_factory.mktemp("unbroken") / "trials.jsonl"
    return tune(CLIPS, references, search, record, NUM_TRIALS), record.read_text()


def test_the_best_trial_is_the_first_with_fewest_errors(search, references, unbroken):
    tuned, _ = unbroken
    rates = [trial.word_error_rate for trial in tuned.trials]
    assert tuned.word_error_rate == min(rates) < rates[0]
    assert tuned.weights == tuned.trials[rates.index(min(rates))].weights


def test_a_rate_is_that_of_the_corpus_decoded_with_the_weights(search, references, unbroken):
    for weights, rate in unbroken[0].trials[:4]:
        found = [search.reweighted(weights).decode(clip)[0].text for clip in CLIPS]
        counts = total([count_words(*pair) for pair in zip(references, found, strict=True)])
        assert rate == counts.errors / counts.reference_length


def test_the_first_trial_has_the_weights_of_the_search_and_all_are_in_range(search, unbroken):
    weights = np.array([trial.weights for trial in unbroken[0].trials])
    assert unbroken[0].trials[0].weights == search.weights
    assert len(np.unique(weights, axis=0)) == NUM_TRIALS
    for column, (low, high) in zip(weights.T, (LM_WEIGHTS, WORD_SCORES), strict=True):
        assert low <= column.min() < column.max() <= high


@pytest.mark.parametrize("cut", [1.0, 0.97, 0.5, 0.02, 0.0])
def test_a_run_that_was_killed_ends_as_it_would_have(search, references, unbroken, tmp_path, cut):
    expected, text = unbroken
    record = tmp_path / "trials.jsonl"
    record.write_text(text[: int(cut * len(text))])
    assert tune(CLIPS, references, search, record, NUM_TRIALS) == expected
    assert record.read_text() == text


def test_recorded_trials_are_not_run_again(search, references, unbroken, tmp_path):
    record = tmp_path / "trials.jsonl"
    setting, *rows = unbroken[1].splitlines()
    changed = json.loads(rows[-1]) | {"word_error_rate": -1.0}
    record.write_text("\n".join([setting, *rows[:-1], json.dumps(changed)]) + "\n")
    assert tune(CLIPS, references, search, record, NUM_TRIALS).word_error_rate == -1.0


def test_a_record_can_go_on_for_more_trials(search, references, unbroken, tmp_path):
    record = tmp_path / "trials.jsonl"
    tune(CLIPS, references, search, record, 3)
    assert tune(CLIPS, references, search, record, NUM_TRIALS, num_workers=2) == unbroken[0]


def test_another_seed_draws_other_weights(search, references, unbroken, tmp_path):
    other = tune(CLIPS, references, search, tmp_path / "trials.jsonl", 3, seed=1)
    assert other.trials[0] == unbroken[0].trials[0]
    assert other.trials[1] != unbroken[0].trials[1]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda search, references: (search, references, 1), "seed=0, now it is 1"),
        (lambda search, references: (dataclasses.replace(search, beam=21), references, 0), "beam=20, now it is 21"),
        (lambda search, references: (dataclasses.replace(search, model=NoModel()), references, 0), "now it is 'NoM"),
        (lambda search, references: (search, ["A", *references[1:]], 0), "references_crc32"),
    ],
)
def test_a_record_of_something_else_is_refused(search, references, unbroken, tmp_path, change, message):
    record = tmp_path / "trials.jsonl"
    record.write_text(unbroken[1])
    search, references, seed = change(search, references)
    with pytest.raises(RecordError, match=message):
        tune(CLIPS, references, search, record, NUM_TRIALS, seed)
    assert record.read_text() == unbroken[1]


@pytest.mark.parametrize("text", ["notes\n", "[1, 2]\n", '{"seed": 0}\n{"wer": 1}\n'])
def test_a_file_that_is_no_record_is_refused(search, references, tmp_path, text):
    record = tmp_path / "trials.jsonl"
    record.write_text(text)
    with pytest.raises(RecordError, match="is no record of trials"):
        tune(CLIPS, references, search, record)
    assert record.read_text() == text


def test_weights_that_would_not_come_next_are_refused(search, references, unbroken, tmp_path):
    record = tmp_path / "trials.jsonl"
    setting, first, second, *_ = unbroken[1].splitlines()
    record.write_text("\n".join([setting, first, json.dumps(json.loads(second) | {"lm_weight": 3.0})]) + "\n")
    with pytest.raises(RecordError, match="another version of Optuna"):
        tune(CLIPS, references, search, record)


def first_error(clips, references, search, record, **options):
    next(run_trials(clips, references, search, record, **options))


def test_input_that_cannot_be_tuned_on_is_refused(search, references, tmp_path):
    record = tmp_path / "trials.jsonl"
    with pytest.raises(ValueError, match="7 references cannot be those of 8 clips"):
        first_error(CLIPS, references[:-1], search, record)
    with pytest.raises(ValueError, match="the 8 references have no words"):
        first_error(CLIPS, [""] * 8, search, record)
    with pytest.raises(ValueError, match=r"starts from the search's lm_weight=7\.0; give one from 0 to 5"):
        first_error(CLIPS, references, dataclasses.replace(search, weights=Weights(7.0)), record)
    with pytest.raises(ValueError, match="0 trials find nothing"):
        first_error(CLIPS, references, search, record, num_trials=0)
    assert not record.exists()
