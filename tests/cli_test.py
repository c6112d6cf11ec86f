import json
import subprocess
import sys
from pathlib import Path

import jax
import micro
import numpy as np
import pytest
import soundfile
from checkpointed import save

from w2v2_jax import demo, pretrained
from w2v2_jax.cli import main
from w2v2_jax.commands import conversion
from w2v2_jax.commands.terminal import complain

EXPERIMENT = """
import checkpointed, micro
from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.pipeline import Transcribed
from w2v2_jax.data.records import Corpus
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.experiment import Experiment

def experiment():
    data = Transcribed(Corpus("tones", "train", "data"), micro.VOCABULARY, PercentileBuckets(2**20, 1), normalise=True)
    optimizer = Adam(PolynomialDecay(peak=2e-2, warmup_steps=5))
    return Experiment("tones", checkpointed.coarse_task(), data, data, optimizer, num_steps=60, log_every=20)
"""
TEXTS = ("AB CA", "CAB", "B", "CC A", "BAC")
PERIODS = {"A": 12, "B": 25, "C": 50, "|": 2**20}


def sing(text):
    """A note of a tenth of a second for each letter, and as much silence at the end of a word."""
    notes = [micro.tone(PERIODS[letter], 1600) for letter in text.replace(" ", "|") + "|"]
    return 0.3 * np.concatenate(notes)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with recordings, their corpus, an experiment and a run of it: made by the commands themselves."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for number, text in enumerate(TEXTS):
            soundfile.write(f"{number}.wav", sing(text), 16_000)
        rows = [f"{number}.wav,{text}" for number, text in enumerate(TEXTS)]
        Path("tones.csv").write_text("\n".join(["path,text", *rows]))
        Path("tones_experiment.py").write_text(EXPERIMENT)
        assert main(["prepare", "manifest", "train=tones.csv", "--name", "tones", "--data-dir", "data"]) == 0
        assert main(["train", "tones_experiment.py", "--set", "num_steps=80", "seed=1", "--quiet"]) == 0
    return folder


@pytest.fixture
def run(work, monkeypatch, capsys):
    """Runs a command in that folder: its exit status, standard output and standard error."""
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        capsys.readouterr()
        status = main(arguments)
        return status, *capsys.readouterr()

    return run


def test_help_is_given_without_loading_jax():
    code = "import sys, w2v2_jax.cli\ntry: w2v2_jax.cli.main(['--help'])\nfinally: print('jax' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert "transcribe" in done.stdout and done.stdout.endswith("False\n")


def test_a_trained_run_transcribes_what_it_learned_and_reports_a_file_that_cannot_be_read(run):
    Path("bad.wav").write_text("not audio")
    soundfile.write("short.wav", sing("A")[:399], 16_000)
    status, out, err = run("transcribe", "runs/tones", "0.wav", "bad.wav", "2.wav", "short.wav", "4.wav")
    assert out == "0.wav\tAB CA\n2.wav\tB\n4.wav\tBAC\n"
    bad, short = err.splitlines()
    assert bad.startswith("w2v2: bad.wav: unreadable") and short.startswith("w2v2: short.wav: too short: 399 samples")
    assert status == 2


def test_one_file_gives_its_text_alone(run):
    assert run("transcribe", "runs/tones/checkpoints/80", "1.wav") == (0, "CAB\n", "")


def test_json_has_the_times_of_words(run):
    status, out, _ = run("transcribe", "runs/tones", "3.wav", "--json")
    fields = json.loads(out)
    assert (status, fields["file"], fields["text"], fields["seconds"]) == (0, "3.wav", "CC A", 0.5)
    first, second = fields["words"]
    assert first["text"] == "CC" and second["text"] == "A" and first["end"] <= second["start"]
    assert fields["score"] < 0


def test_evaluation_of_what_was_learned_finds_no_error(run):
    status, out, _ = run("evaluate", "runs/tones", "tones/train", "--data-dir", "data", "--output", "report.json")
    assert status == 0 and "0.00%" in out and "5 utterances" in out
    report = json.loads(Path("report.json").read_text())
    assert {each["reference"]: each["hypothesis"] for each in report["utterances"]} == {text: text for text in TEXTS}


TARGETS = {"huggingface": "to_hf", "fairseq": "to_fairseq/model.pt", "torchaudio": "to_torchaudio"}


@pytest.mark.parametrize("to", TARGETS)
def test_a_run_converted_for_another_library_still_knows_what_it_learned_there_and_back(run, to):
    assert run("convert", "runs/tones", TARGETS[to], "--to", to)[:2] == (0, f"CTCModel written to {TARGETS[to]}\n")
    assert run("transcribe", TARGETS[to], "0.wav", "4.wav") == (0, "0.wav\tAB CA\n4.wav\tBAC\n", "")
    assert run("convert", TARGETS[to], f"from_{to}")[0] == 0
    assert run("transcribe", f"from_{to}", "0.wav", "4.wav") == (0, "0.wav\tAB CA\n4.wav\tBAC\n", "")
    status, out, _ = run("evaluate", f"from_{to}", "tones/train", "--data-dir", "data", "--quiet")
    assert status == 0 and "0.00%" in out


def test_the_targets_of_the_command_are_those_of_the_library():
    assert conversion.TARGETS == pretrained.TARGETS


def test_training_again_goes_on_from_the_last_step(run):
    steps = len(Path("runs/tones/metrics.jsonl").read_text().splitlines())
    status, out, _ = run("train", "tones_experiment.py", "--set", "num_steps=80", "seed=1", "--quiet")
    assert status == 0 and "valid/word_error_rate" in out
    assert len(Path("runs/tones/metrics.jsonl").read_text().splitlines()) == steps


def test_the_doctor_finds_a_good_run_healthy_and_a_bad_one_not(run):
    assert run("doctor", "runs/tones") == (0, "healthy\n", "")
    bad = Path("bad_run")
    bad.mkdir()
    (bad / "experiment.json").write_text(Path("runs/tones/experiment.json").read_text())
    (bad / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    status, out, _ = run("doctor", "bad_run")
    assert status == 1 and "not finite" in out


def test_the_curves_of_runs_are_drawn(run):
    assert run("plot", "runs/tones", "runs/tones", "--output", "both.png")[:2] == (0, "Figure: both.png\n")
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = run("plot", "runs/tones", "--metrics", "wer")
    assert status == 2 and "no run logs wer" in err


def test_a_folder_becomes_a_corpus(run):
    status, _, err = run("prepare", "folder", ".", "--name", "recordings", "--data-dir", "data", "--valid-percent", "0")
    assert status == 0 and "recordings" in err
    assert Path("data/recordings/1.0.0/report.json").exists()


def test_the_options_of_synthetic_speech_reach_its_source(monkeypatch, run):
    asked = []
    monkeypatch.setattr("w2v2_jax.data.prepare.prepare", lambda *source, **settings: asked.append((source, settings)))
    arguments = ("--train-minutes", "2", "--num-speakers", "3", "--data-dir", "there", "--max-seconds", "9")
    assert run("prepare", "espeak", *arguments) == (0, "", "")
    (((source, data_dir), settings),) = asked
    assert (source.train_minutes, source.num_speakers, source.test_minutes) == (2, 3, type(source)().test_minutes)
    assert data_dir == "there" and settings == {"max_seconds": 9}


def test_a_quick_demonstration_has_a_folder_of_its_own(monkeypatch, run):
    monkeypatch.setattr(demo, "run", lambda *asked: runs.append(asked))
    runs = []
    assert run("demo") == run("demo", "--quick") == (0, "", "")
    assert runs == [(Path("runs/demo"), demo.FULL), (Path("runs/demo_quick"), demo.QUICK)]


ERRORS = {
    "unknown experiment": (
        ("train", "tones_experimnt.py"),
        "there is no experiment tones_experimnt.py; did you mean tones_experiment.py?",
    ),
    "misspelt setting": (
        ("train", "tones_experiment.py", "--set", "task.mdel.encoder.embed_dim=8"),
        "there is no 'task.mdel'; did you mean 'task.model'?",
    ),
    "unknown type": (
        ("train", "tones_experiment.py", "--set", "task.model.encoder.dtype=bf16"),
        "'task.model.encoder.dtype' is 'float32'; it can't become 'bf16', but one of float32, bfloat16, float16",
    ),
    "setting that makes no model": (
        ("train", "tones_experiment.py", "--set", "seed=1", "task.model.encoder.embed_dim=-1"),
        "no model can be made with seed=1 task.model.encoder.embed_dim=-1: ",
    ),
    "experiment without its suffix": (
        ("train", "./tones_experiment"),
        "there is no experiment tones_experiment; did you mean tones_experiment.py?",
    ),
    "label outside the vocabulary": (
        ("train", "tones_experiment.py", "--set", "train_data.source.name=small_letters", "--workdir", "unused"),
        "utterance '0.wav': character 'b' at position 1 of 'Ab'",
    ),
    "missing corpus": (
        ("train", "tones_experiment.py", "--set", "train_data.source.name=other", "--workdir", "unused"),
        "no corpus 'other' under data",
    ),
    "another architecture": (
        ("train", "tones_experiment.py", "--set", "task.model.encoder.embed_dim=24"),
        "is of another model",
    ),
    "damaged recording": (
        ("train", "tones_experiment.py", "--set", "train_data.source.name=damaged", "--workdir", "unused"),
        "damaged: the audio of utterance '",
    ),
    "damaged recording to evaluate": (
        ("evaluate", "runs/tones", "damaged/train", "--data-dir", "data", "--quiet"),
        "damaged: the audio of utterance '",
    ),
    "empty dataset": (
        ("evaluate", "runs/tones", "recordings_without_dev/dev", "--data-dir", "data"),
        "split 'dev' of corpus 'recordings_without_dev' is empty",
    ),
    "folder without audio": (
        ("prepare", "folder", "runs", "--name", "none", "--data-dir", "data"),
        "runs has no audio file at any depth",
    ),
    "missing checkpoint": (("transcribe", "runs/tonse", "0.wav"), "there is no runs/tonse"),
    "pretraining checkpoint": (("transcribe", "pretrained", "0.wav"), "pretrained is a checkpoint of Pretraining"),
    "no checkpoint": (("transcribe", "data", "0.wav"), "data has no config.json; accepted are folders of transformers"),
    "text for weights": (("convert", "corpus.pt", "out"), "corpus.pt"),
    "target that exists": (("convert", "runs/tones", "data", "--to", "huggingface"), "data exists; give another name"),
    "folder for fairseq": (("convert", "runs/tones", "out", "--to", "fairseq"), "out should end in .pt"),
    "no such language": (("transcribe", "runs/tones", "0.wav", "--language", "fra"), "no attention adapters"),
    "not a run": (("doctor", "data"), "data is not a run"),
    "missing manifest": (("prepare", "manifest", "train=no.csv", "--name", "none"), "there is no manifest no.csv"),
}  # fmt: skip


def make_what_errors_need():
    Path("corpus.pt").write_text("not a network")
    save(Path("pretrained"), micro.pretraining(valid_data=micro.Normalised()))
    Path("small.csv").write_text("path,text\n0.wav,Ab")
    assert main(["prepare", "manifest", "train=small.csv", "--name", "small_letters", "--data-dir", "data"]) == 0
    name = "recordings_without_dev"
    assert main(["prepare", "folder", ".", "--name", name, "--data-dir", "data", "--valid-percent", "0"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("w2v2_jax.data.prepare.encode_flac", lambda waveform: b"not FLAC")
        assert main(["prepare", "manifest", "train=tones.csv", "--name", "damaged", "--data-dir", "data"]) == 0


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_bad_input_is_an_error_of_one_line(run, arguments, message):
    if not Path("pretrained").exists():
        make_what_errors_need()
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("w2v2: ") and message in err and err.count("\n") == 1


def test_an_error_of_several_lines_is_told_in_one(capsys):
    complain("no model:\n  a shape is negative")
    assert capsys.readouterr().err == "w2v2: no model:   a shape is negative\n"


def test_debug_shows_where_an_error_comes_from(run):
    with pytest.raises(FileNotFoundError, match="there is no runs"):
        run("transcribe", "runs/tonse", "0.wav", "--debug")


def test_an_interrupted_command_ends_quietly(run, monkeypatch):
    def interrupt(path, language):
        raise KeyboardInterrupt

    monkeypatch.setattr("w2v2_jax.recognition.load_recogniser", interrupt)
    assert run("transcribe", "runs/tones", "0.wav") == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "run", "espeak"), "'espeak' should be DATASET/SPLIT, e.g. espeak/test"),
        (("prepare", "manifest", "train.tsv", "--name", "x"), "'train.tsv' should be SPLIT=FILE"),
        (("train", "x", "--workdir", "gs://bucket/run"), "give a local or mounted folder"),
    ],
)
def test_an_argument_of_the_wrong_form_is_refused_with_the_right_one(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err
