import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import loopback
import micro
import numpy as np
import pytest
import soundfile
from checkpointed import save

from w2v2_jax import demo, pretrained
from w2v2_jax.cli import main
from w2v2_jax.commands import conversion
from w2v2_jax.commands.terminal import complain
from w2v2_jax.data.beam_pipeline import Beam
from w2v2_jax.data.prepare import Processes
from w2v2_jax.data.sources.catalogue import Catalogue
from w2v2_jax.data.sources.common_voice import CommonVoice
from w2v2_jax.data.sources.folders import AudioFolder
from w2v2_jax.data.sources.gigaspeech import GigaSpeech
from w2v2_jax.data.sources.librilight import LibriLight, LibriLightLimited
from w2v2_jax.data.sources.librispeech import LibriSpeech
from w2v2_jax.data.sources.ljspeech import LJSpeech
from w2v2_jax.data.sources.manifests import Manifests
from w2v2_jax.data.sources.multilingual_librispeech import MultilingualLibriSpeech
from w2v2_jax.data.sources.parquet import Parquet
from w2v2_jax.data.sources.timit import Timit
from w2v2_jax.data.sources.voxpopuli import VoxPopuli
from w2v2_jax.data.sources.webdataset import WebDataset

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
LANGUAGE_EXPERIMENT = """
from experiments.language import tiny
from w2v2_jax.overrides import override

def experiment():
    changed = {"name": "tones_lm", "num_steps": 2, "eval_every": 2, "optimizer.schedule.warmup_steps": 1,
               "train_data.name": "tones_lm",
               "valid_data.name": "tones_lm"}
    return override(tiny.experiment("data"), changed)
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
        assert main(["train", "tones_experiment.py", "--set", "num_steps=80", "seed=2", "--quiet"]) == 0
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


STILL_ASKING = """
import threading, time
from w2v2_jax.data.remote import UnreachableError

def experiment():
    threading.Thread(target=time.sleep, args=(100,)).start()
    raise UnreachableError("gs://bucket can't be reached")
"""


def test_a_command_ends_while_threads_still_ask_a_bucket_that_does_not_answer(tmp_path):
    (tmp_path / "asking.py").write_text(STILL_ASKING)
    command = [sys.executable, "-m", "w2v2_jax.cli", "train", "asking.py", "--workdir", "run"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (75, "w2v2: gs://bucket can't be reached\n")


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
    status, out, _ = run("transcribe", "runs/tones", "3.wav", "--format", "json")
    fields = json.loads(out)
    assert (status, fields["file"], fields["text"], fields["seconds"]) == (0, "3.wav", "CC A", 0.5)
    first, second = fields["words"]
    assert first["text"] == "CC" and second["text"] == "A" and first["end"] <= second["start"]
    assert [symbol["text"] for symbol in fields["symbols"]] == ["C", "C", "A"]
    assert fields["symbols"][0]["start"] == first["start"] and fields["symbols"][2]["end"] == second["end"]
    assert fields["score"] < 0


def test_evaluation_of_what_was_learned_finds_no_error(run):
    status, out, _ = run("evaluate", "runs/tones", "tones/train", "--data-dir", "data", "--output", "report.json")
    assert status == 0 and "0.00%" in out and "5 utterances" in out
    report = json.loads(Path("report.json").read_text())
    assert {each["reference"]: each["hypothesis"] for each in report["utterances"]} == {text: text for text in TEXTS}


def test_a_long_recording_is_transcribed_in_chunks_and_subtitled(run):
    texts = ("AB CA", "CAB") * 3
    soundfile.write("long.wav", np.concatenate([sing(text) for text in texts]), 16_000)
    chunks = ("--chunk-seconds", "1.5", "--stride-seconds", "0.3")
    assert run("transcribe", "runs/tones", "long.wav", *chunks) == (0, f"{' '.join(texts)}\n", "")
    status, out, _ = run("transcribe", "runs/tones", "long.wav", *chunks, "--format", "srt")
    assert status == 0 and out.startswith("1\n00:00:00,") and " --> " in out and "AB CA CAB" in out
    status, *_ = run("transcribe", "runs/tones", "0.wav", "2.wav", "--format", "vtt", "--output", "subtitles")
    assert status == 0 and Path("subtitles/2.vtt").read_text().startswith("WEBVTT\n")
    status, _, err = run("transcribe", "runs/tones", "0.wav", "../work/0.wav", "--output", "subtitles")
    assert status == 2 and "several recordings are named 0" in err
    status, _, err = run("transcribe", "runs/tones", "0.wav", "2.wav", "--format", "vtt")
    assert status == 2 and "subtitles of 2 recordings can't be one file" in err


def test_words_and_letters_of_a_known_transcript_are_found_in_time(run):
    status, out, _ = run("align", "runs/tones", "0.wav", "AB CA")
    found = json.loads(out)
    assert status == 0 and found["seconds"] == 0.6
    assert [word["text"] for word in found["words"]] == ["AB", "CA"]
    assert [symbol["text"] for symbol in found["symbols"]] == list("ABCA")
    # The second word is sung from 0.3 to 0.5 s; a frame of this coarse model lasts a twentieth of a second.
    assert abs(found["words"][1]["start"] - 0.3) < 0.11 and abs(found["words"][1]["end"] - 0.5) < 0.11
    status, _, err = run("align", "runs/tones", "0.wav", "AB CA", "--chunk-seconds", "1", "--stride-seconds", "2")
    assert status == 2 and "give a stride above 0 and less than half a chunk" in err
    Path("said.txt").write_text("BAC\n")
    status, out, _ = run("align", "runs/tones", "4.wav", "said.txt", "--format", "ctm")
    assert status == 0 and out.split()[0] == "4" and out.split()[4] == "BAC"


def test_a_corpus_is_aligned_into_a_file_for_each_utterance(run):
    where = ("runs/tones", "tones/train", "--data-dir", "data", "--output", "aligned")
    status, *_ = run("align", *where, "--format", "textgrid")
    assert status == 0 and len(list(Path("aligned").glob("*.TextGrid"))) == len(TEXTS)
    assert run("align", *where, "--format", "ctm")[0] == 0
    found = {file.stem: file.read_text().split() for file in Path("aligned").glob("*.ctm")}
    assert len(found) == len(TEXTS) and all(fields[0] == name for name, fields in found.items())
    status, _, err = run("align", "runs/tones", "tones/train", "--data-dir", "data")
    assert status == 2 and "give a folder for its alignments with --output" in err


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the transcript is empty"),
        ("AX", "character 'X' at position 1"),
        ("ABC " * 100, "needs 400 frames"),
    ],
)
def test_a_transcript_that_can_not_be_aligned_is_an_error(run, text, error):
    status, out, err = run("align", "runs/tones", "0.wav", text)
    assert (status, out) == (2, "") and error in err and len(err.splitlines()) == 1


@pytest.fixture
def model(run):
    """An n-gram model of the transcripts, made by its command."""
    assert run("lm", "train", "tones/train", "--data-dir", "data", "--order", "2", "--discount-fallback")[0] == 0
    return "2gram.arpa"


def test_a_language_model_is_trained_and_measured(run, model):
    status, out, _ = run("lm", "perplexity", model, "tones/train", "--data-dir", "data")
    assert status == 0 and "num unknown" in out
    with gzip.open("other.txt.gz", "wt") as file:
        file.write("Ab, ca!\nX\nNo. 5\n")
    status, out, err = run("lm", "perplexity", model, "other.txt.gz", "--clean")
    assert status == 0 and "num tokens" in out and "1 sentences of other.txt.gz were left out" in err
    status, _, err = run("lm", "train", "nowhere.txt", "--output", "x.arpa")
    assert status == 2 and "there is no file nowhere.txt" in err


def test_a_beam_search_with_a_language_model_recognises_reports_and_compares(run, model):
    beam = ("--lm", model, "--lm-weight", "0.5", "--word-score", "0", "--beam", "20", "--workers", "1")
    status, out, err = run("transcribe", "runs/tones", "0.wav", "2.wav", *beam)
    assert (status, out) == (0, "0.wav\tAB CA\n2.wav\tB\n")
    assert err == "2gram.arpa: 7 of 7 words can be written in the labels of the checkpoint\n"
    where = ("tones/train", "--data-dir", "data", "--quiet")
    assert run("evaluate", "runs/tones", *where, "--output", "greedy.json", "--workdir", "parts")[0] == 0
    status, out, _ = run("evaluate", "runs/tones", *where, *beam, "--html", "tones.html", "--compare", "greedy.json")
    assert status == 0 and "0.00%" in out and "better with a probability of 50.0%" in " ".join(out.split())
    assert "5 utterances" in Path("tones.html").read_text()
    status, _, err = run("evaluate", "runs/tones", *where, *beam, "--workdir", "parts")
    assert status == 2 and "parts has work of another setting" in err


def test_what_an_evaluation_could_not_count_or_compare_is_told_before_it_begins(run, monkeypatch):
    monkeypatch.setattr("w2v2_jax.recognition.load_recogniser", None)
    where = ("tones/train", "--data-dir", "data")
    status, _, err = run("evaluate", "runs/tones", *where, "--phones")
    assert status == 2 and "utterance '0.wav': 'AB', phone 0 of 'AB CA', is not one of TIMIT's" in err
    Path("no_report.json").write_text("{}")
    status, _, err = run("evaluate", "runs/tones", *where, "--compare", "no_report.json")
    assert status == 2 and "no_report.json is no report of an evaluation" in err


def test_what_was_said_has_candidates_without_a_model(run):
    status, out, err = run(
        "transcribe", "runs/tones", "0.wav", "2.wav", "--beam", "20", "--format", "json", "--n-best", "3"
    )
    assert (status, err) == (0, "")
    for line, text in zip(out.splitlines(), ("AB CA", "B"), strict=True):
        found = json.loads(line)
        assert found["text"] == found["candidates"][0]["text"] == text
        scores = [each["score"] for each in found["candidates"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True) and found["score"] == scores[0] < 0


def test_any_words_are_recognised_with_a_model_of_letters(run):
    Path("text.txt").write_text("AB CA\nCAB\nB\n" * 3)
    assert run("lm", "train", "text.txt", "--letters", "--order", "2", "--output", "letters.arpa")[0] == 0
    beam = ("--lm", "letters.arpa", "--lexicon-free", "--lm-weight", "0.5", "--beam", "20", "--workers", "1")
    status, out, err = run("transcribe", "runs/tones", "0.wav", "4.wav", *beam)
    assert (status, out) == (0, "0.wav\tAB CA\n4.wav\tBAC\n")
    assert err == "letters.arpa knows 4 of 4 labels of the checkpoint\n"
    status, out, _ = run("lm", "perplexity", "letters.arpa", "text.txt", "--letters")
    assert status == 0 and "num unknown" in out
    gone = run("lm", "perplexity", "gone.arpa", "text.txt")
    assert gone == (2, "", "w2v2: gone.arpa: No such file or directory\n")
    where = ("tune", "runs/tones", "tones/train", "--data-dir", "data", "--workdir", "tuned_letters")
    status, _, err = run(*where, *beam)
    assert status == 2 and "tuning weighs words" in err


IN_PARTS = """
import sys
from w2v2_jax import parts
from w2v2_jax.cli import main
parts.SIZE = 2
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_share_an_evaluation_and_the_first_tells_all_of_it(run):
    arguments = ("evaluate", "runs/tones", "tones/train", "--data-dir", "data")
    shared = ("--workdir", "shared", "--distributed", "--output", "two.json")
    others = {"JAX_COORDINATOR_ADDRESS": f"localhost:{loopback.free_port()}", "JAX_NUM_PROCESSES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", IN_PARTS, *arguments, *shared],
            env=os.environ | others | {"JAX_PROCESS_ID": str(place)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in range(2)
    ]
    first, second = (process.communicate(timeout=300)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert "5 utterances" in first and "5 utterances" not in second
    assert run(*arguments, "--output", "one.json")[0] == 0
    together, alone = (json.loads(Path(name).read_text())["utterances"] for name in ("two.json", "one.json"))
    assert together == alone


def test_weights_are_tuned_recorded_and_taken_up_by_an_evaluation(run, model):
    where = ("tones/train", "--data-dir", "data", "--lm", model, "--beam", "10", "--workers", "1")
    status, out, _ = run("tune", "runs/tones", *where, "--workdir", "tuned", "--trials", "3")
    assert status == 0 and "best of 3" in out
    assert len(Path("tuned/trials.jsonl").read_text().splitlines()) == 4
    assert Path("tuned/surface.png").stat().st_size > 10_000
    status, out, _ = run("evaluate", "runs/tones", *where, "--quiet", "--setting", "tuned/setting.json")
    assert status == 0 and "5 utterances" in out
    status, _, err = run("evaluate", "runs/tones", *where, "--quiet", "--setting", "runs/tones/experiment.json")
    assert status == 2 and "experiment.json is no setting" in err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--lm-weight", "5"), "--lm-weight is for a search with a model; give it a language model with --lm"),
        (("--n-best", "5", "--format", "json"), "without a search there is one transcript; give --n-best a --beam"),
        (("--n-best", "5", "--beam", "9"), "--format text has no place for candidates"),
        (("--n-best", "5", "--beam", "3", "--format", "json"), "a beam of 3 cannot give the 5 best"),
        (("--lexicon", "a.txt", "--lexicon-free"), "--lexicon has no use with --lexicon-free"),
        (("--lm", "a.arpa", "--lexicon-free", "--fuse", "runs/lm"), "--lexicon-free does not know"),
        (("--lm", "nothing.arpa"), "nothing.arpa"),
        (("--lexicon", "nothing.txt"), "the lexicon nothing.txt cannot be read"),
        (("--lm", "tones.csv"), "tones.csv is neither ARPA nor KenLM's binary"),
    ],
)
def test_options_of_a_search_that_can_not_be_are_one_line(run, options, error):
    status, _, err = run("transcribe", "runs/tones", "0.wav", *options)
    assert status == 2 and error in err and len(err.splitlines()) == 1


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
    status, out, _ = run("train", "tones_experiment.py", "--set", "num_steps=80", "seed=2", "--quiet")
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
    assert run("prepare", "espeak", *arguments, "--processes", "3") == (0, "", "")
    (((source, data_dir), settings),) = asked
    assert (source.train_minutes, source.num_speakers, source.test_minutes) == (2, 3, type(source)().test_minutes)
    assert data_dir == "there" and settings == {"max_seconds": 9, "runner": Processes(3)}


@pytest.mark.parametrize(
    ("arguments", "source", "max_seconds"),
    [
        ("librispeech F", LibriSpeech("F"), {"max_seconds": 40}),
        ("librilight F --name ten_hours", LibriLightLimited("F", "ten_hours"), {}),
        ("librilight-unlab F --segment-seconds 20", LibriLight("F", segment_seconds=20.0), {}),
        ("mls F --languages de,fr --max-seconds 20", MultilingualLibriSpeech("F", ("de", "fr")), {"max_seconds": 20}),
        ("voxpopuli F --languages cs", VoxPopuli("F", ("cs",)), {"max_seconds": 31}),
        (
            "common-voice F --languages en,sv-SE --parts validated",
            CommonVoice("F", ("en", "sv-SE"), ("validated",)),
            {},
        ),
        ("gigaspeech F --subsets XS,TEST", GigaSpeech("F", ("XS", "TEST")), {}),
        ("ljspeech F", LJSpeech("F"), {}),
        ("parquet F --name p --text-columns text", Parquet("F", "p", text_columns=("text",)), {}),
        (
            "webdataset train=a-{000..002}.tar dev=b --name w --language de",
            WebDataset("w", (("train", "a-{000..002}.tar"), ("dev", "b")), "de"),
            {},
        ),
        ("catalogue F --name c --sample-rate 48000", Catalogue("F", "c", sample_rate=48_000), {"max_seconds": 40}),
        ("timit F --num-phones 48", Timit("F", num_phones=48), {}),
        ("folder F --name mine --valid-percent 2", AudioFolder("F", "mine", 2.0), {}),
        ("manifest train=a.tsv dev=b.csv --name x", Manifests("x", (("train", "a.tsv"), ("dev", "b.csv"))), {}),
    ],
)
def test_a_copy_of_a_corpus_reaches_its_source(monkeypatch, run, arguments, source, max_seconds):
    asked = []
    monkeypatch.setattr("w2v2_jax.data.prepare.prepare", lambda *source, **settings: asked.append((source, settings)))
    beam = "--beam=--runner=FlinkRunner --flink_master=host:8081"
    assert run("prepare", *arguments.split(), "--data-dir", "there", beam) == (0, "", "")
    runner = Beam(("--runner=FlinkRunner", "--flink_master=host:8081"))
    assert asked == [((source, "there"), {"runner": runner, **max_seconds})]
    status, _, err = run("prepare", *arguments.split(), beam, "--processes", "2")
    assert status == 2 and "give one of them" in err


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
        patch.setattr("w2v2_jax.data.shards.encode_flac", lambda waveform: b"not FLAC")
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
        (
            ("evaluate", "run", "espeak/test", "--html", "nowhere/report.html"),
            "there is no folder nowhere to write report",
        ),
        (("plot", "run", "--output", "."), ". is a folder; give the name of a file"),
        (("transcribe", "run", "a.wav", "--workers", "0"), "'0' should be a whole number, 1 or more"),
    ],
)
def test_an_argument_of_the_wrong_form_is_refused_with_the_right_one(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_transformer_is_trained_on_a_text_measured_and_ranks_or_is_asked(run, model):
    where = ("--train", "tones/train", "--dev", "tones/train", "--max-words", "20", "--data-dir", "data")
    assert run("lm", "prepare", "tones_lm", *where)[:2] == (
        0,
        "tones_lm: 9 words are known, `</s>` and `<unk>` among them\n",
    )
    Path("lm_experiment.py").write_text(LANGUAGE_EXPERIMENT)
    status, _, err = run("train", "lm_experiment.py", "--quiet")
    assert status == 0, err
    status, out, _ = run("lm", "perplexity", "runs/tones_lm", "tones/train", "--data-dir", "data")
    assert status == 0 and "without unknown" in out
    tuning = ("--data-dir", "data", "--lm", model, "--beam", "10", "--workers", "1", "--rescore", "runs/tones_lm")
    status, out, _ = run("tune", "runs/tones", "tones/train", *tuning, "--workdir", "tuned_lm")
    assert status == 0 and "--rescore runs/tones_lm" in " ".join(out.split())
    assert set(json.loads(Path("tuned_lm/setting.json").read_text())) >= {"weights", "by_transformer"}
    said = "0.wav\tAB CA\n2.wav\tB\n"
    beam = ("--lm", model, "--beam", "10", "--lm-weight", "0.1", "--word-score", "0", "--workers", "1")
    for ask in ("--rescore", "--fuse"):
        assert run("transcribe", "runs/tones", "0.wav", "2.wav", *beam, ask, "runs/tones_lm")[:2] == (0, said)
    status, _, err = run("transcribe", "runs/tones", "0.wav", *beam, "--rescore", "a", "--fuse", "b")
    assert status == 2 and "give one of them" in err
