import json
import os
import sys
from pathlib import Path

import pytest
from planted import flac, noise, prepared, sound_corpus

from w2v2_jax.cli import main
from w2v2_jax.data.corpora import corpus_dir

EXPERIMENT = """
import micro
from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.pipeline import Transcribed
from w2v2_jax.data.records import Corpus
from w2v2_jax.data.text import LETTERS
from w2v2_jax.experiment import Experiment
from w2v2_jax.optimizers import Adam, PolynomialDecay

def experiment():
    train, valid = (
        Transcribed(Corpus("given", split, "data"), LETTERS, PercentileBuckets(64_000, 2, 4), normalise=True)
        for split in ("train", "dev")
    )
    optimizer = Adam(PolynomialDecay(peak=1e-3, warmup_steps=5))
    return Experiment("given", micro.ctc_task(), train, valid, optimizer, num_steps=60)
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Prepares a corpus and runs the command on it: its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "given_experiment", raising=False)
    # Tables as wide as these say, whatever terminal rich has found for an earlier test or finds now.
    monkeypatch.setattr("rich._console", None)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")
    Path("given_experiment.py").write_text(EXPERIMENT)

    def run(corpus, *arguments):
        if not Path("data").exists():
            prepared(corpus, "data")
        capsys.readouterr()
        status = main(["preflight", *arguments, "--data-dir", "data"])
        return status, *capsys.readouterr()

    return run


def test_a_sound_corpus_is_sound(run):
    status, out, _ = run(sound_corpus(), "given")
    assert status == 0 and "error" not in out and "warning" not in out
    last = out.splitlines()[-1]
    assert last == "Figure: runs/given_preflight/durations_given.png"
    assert Path(last.removeprefix("Figure: ")).read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_is_listed_and_written_down(run):
    corpus = sound_corpus()
    corpus["test"][1]["audio"] = corpus["train"][4]["audio"]
    corpus["train"][2]["text"] = ""
    status, out, _ = run(corpus, "given", "--output", "found.json", "--workdir", "here")
    assert status == 1
    listed = "empty transcripts:\n  train/train2\nrecordings of test in training:\n  test/test1 and train/train4\n"
    assert out.endswith(f"{listed}Figure: here/durations_given.png\n")
    fields = json.loads(Path("found.json").read_text())
    assert [check["name"] for check in fields["checks"] if check["verdict"] == "error"] == [
        "empty transcripts",
        "recordings of test in training",
    ]
    assert fields["splits"]["train"]["utterances"] == 6 and fields["figure"] == "here/durations_given.png"


def test_a_shard_that_is_cut_off_is_reported_and_all_else_is_looked_at(run):
    run(sound_corpus(), "given")
    [file] = corpus_dir("given", "data").glob("given-train.array_record*")
    os.truncate(file, os.path.getsize(file) // 2)
    status, out, _ = run({}, "given", "--experiment", "given_experiment.py")
    assert status == 1
    assert "damaged shard files:\n  given-train.array_record-00000-of-00001 has" in out
    assert "unreadable:\n  train/train0: " in out and "│ test " in out
    assert "train: batches:" in out and "valid: 1 process in step" in out


def test_warnings_do_not_stop_a_launch(run):
    corpus = sound_corpus()
    corpus["test"][1]["text"] = "SIX FEET UNDER"
    status, out, _ = run(corpus, "given")
    assert status == 0 and "'SIX FEET UNDER'" in out and "warning" in out


def test_speakers_may_be_the_same_where_it_is_said(run):
    corpus = sound_corpus()
    corpus["test"][1]["speaker"] = "train speaker 0"
    assert run(corpus, "given")[0] == 1
    assert run(corpus, "given", "--same-speakers")[0] == 0


def test_a_split_alone_is_not_compared_with_the_others(run):
    corpus = sound_corpus()
    corpus["test"][1]["speaker"] = "train speaker 0"
    status, out, _ = run(corpus, "given/test")
    assert status == 0 and "there aren't both training and test" in out
    assert out.endswith("Figure: runs/given_preflight/durations_given_test.png\n")


def test_an_experiment_has_its_vocabulary_and_its_batches_checked(run):
    corpus = sound_corpus()
    status, out, _ = run(corpus, "given", "--experiment", "given_experiment.py", "--hosts", "4")
    assert status == 0
    assert "train: 4 processes in step" in out and "valid: 4 processes in step" in out
    status, out, err = run(corpus, "given", "--experiment", "given_experiment.py", "--hosts", "3")
    assert status == 1 and "4 rows of 0.50 s: make it a multiple of 3" in out
    assert "w2v2: train: uneven for 3 processes: 4 rows" in err


def test_settings_are_changed_as_for_training(run):
    setting = "train_data.buckets.batch_multiple=3"
    arguments = ("given", "--experiment", "given_experiment.py", "--hosts", "3", "--set", setting)
    assert "train: 3 processes in step" in run(sound_corpus(), *arguments)[1]


def test_letters_outside_the_vocabulary_of_the_experiment_are_found(run):
    corpus = sound_corpus()
    corpus["test"][2]["text"] = "ELEVEN FRIENDS \u00c9"
    assert run(corpus, "given")[0] == 0
    status, out, _ = run(corpus, "given", "--experiment", "given_experiment.py")
    assert status == 1 and "outside the vocabulary:\n  '\u00c9' (U+00C9) 1 times, first in test/test2\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other",), "no corpus 'other'"),
        (("given/tset",), "no utterances in a split 'tset'"),
        (("given", "--experiment", "mine.py"), "there is no experiment mine.py"),
        (("given", "--set", "num_steps=3"), "give it with --experiment"),
        (("given", "--experiment", "given_experiment.py", "--set", "num_stepz=3"), "num_steps"),
    ],
)
def test_bad_input_is_an_error_of_one_line(run, arguments, message):
    status, out, err = run(sound_corpus(), *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("w2v2: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "/train", "given/"])
def test_a_corpus_that_is_misspelled_is_told_how_to_be_spelled(run, text, capsys):
    with pytest.raises(SystemExit) as ended:
        run(sound_corpus(), text)
    assert ended.value.code == 2 and "should be DATASET or DATASET/SPLIT" in capsys.readouterr().err


def test_every_audio_defect_on_disk_is_found(run):
    corpus = sound_corpus()
    corpus["dev"][0]["audio"] = flac(0 * noise("x"))
    status, out, _ = run(corpus, "given")
    assert status == 1 and "silent:\n  dev/dev0: RMS 0.0e+00 of full scale\n" in out
