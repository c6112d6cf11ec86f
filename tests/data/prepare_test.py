import csv
import dataclasses
import errno
import hashlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from w2v2_jax.data import shards
from w2v2_jax.data.audio import AudioError, Recording, Utterance, decode_flac
from w2v2_jax.data.corpora import INDEXED, CorpusError, corpus_dir, open_split
from w2v2_jax.data.prepare import Processes, SplitSize, prepare
from w2v2_jax.data.sources.folders import AudioFolder
from w2v2_jax.disk import DiskFullError


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Utterances that are as long as their number says; those in `bad` cannot be read."""

    lengths: tuple[int, ...] = (1000, 2000, 3000)
    bad: tuple[int, ...] = ()
    name: str = "numbers"

    def splits(self):
        return {
            "train": [Utterance(str(i), f"/{i}.wav", partial(self.read, i), f"T{i}") for i in range(len(self.lengths))]
        }

    def read(self, number, max_seconds):
        if number in self.bad:
            raise AudioError(f"broken: number {number}")
        return Recording(np.random.default_rng(number).normal(0, 0.1, self.lengths[number]).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Given:
    """Whatever splits it is given."""

    given: dict
    name: str = "given"

    def splits(self):
        return self.given


def ids(split, data_dir, name="numbers"):
    records = open_split(name, split, data_dir)
    return [records[i]["id"] for i in range(len(records))]


def test_kept_and_rejected_add_up_to_what_went_in(tmp_path):
    report = prepare(Numbers(lengths=(1000,) * 20, bad=(3, 7, 8)), tmp_path, progress=False)
    assert report.splits == {"train": SplitSize(17, 3, pytest.approx(17 * 1000 / 16_000))}
    assert [reject.id for reject in report.rejects] == ["3", "7", "8"]
    assert report.reasons() == {"broken": 3}
    assert ids("train", tmp_path) == [str(i) for i in range(20) if i not in (3, 7, 8)]


def test_rejects_are_listed_beside_the_data(tmp_path):
    report = prepare(Numbers(bad=(1,)), tmp_path, progress=False)
    with open(f"{report.directory}/rejects.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert rows == [{"split": "train", "id": "1", "path": "/1.wav", "reason": "broken: number 1"}]


@pytest.fixture
def fours(monkeypatch):
    """Shards of four utterances."""
    monkeypatch.setattr(shards, "UTTERANCES", 4)


def content_of(data_dir):
    """All records, and the bytes of what lies beside them: the files of records themselves are never the same twice."""
    split = open_split("numbers", "train", data_dir)
    beside = {file.name: file.read_bytes() for file in split.index}
    assert len(beside) == len(list(corpus_dir("numbers", data_dir).glob("*array_record*")))
    return beside, [(record["id"], record["audio"]) for record in map(split.__getitem__, range(len(split)))]


@pytest.mark.usefixtures("fours")
@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_order_is_that_of_the_source_across_shards_threads_and_processes(tmp_path, count):
    prepare(Numbers(lengths=tuple(range(500, 530))), tmp_path, progress=False, runner=Processes(count))
    assert ids("train", tmp_path) == [str(i) for i in range(30)]
    assert len(list(corpus_dir("numbers", tmp_path).glob("*array_record*"))) == 8  # thirty in fours


@pytest.mark.usefixtures("fours")
def test_processes_write_what_threads_write(tmp_path):
    source = Numbers(lengths=tuple(range(500, 530)), bad=(3, 17))
    reports = [prepare(source, tmp_path / f"{count}", progress=False, runner=Processes(count)) for count in (2, 9)]
    assert reports[0].rejects == reports[1].rejects and reports[0].splits == reports[1].splits
    assert content_of(tmp_path / "2") == content_of(tmp_path / "9")


@pytest.mark.usefixtures("fours")
def test_a_shard_of_which_nothing_is_left_does_no_harm(tmp_path):
    prepare(Numbers(lengths=(1000,) * 10, bad=(4, 5, 6, 7)), tmp_path, progress=False)
    assert ids("train", tmp_path) == ["0", "1", "2", "3", "8", "9"]


@pytest.mark.usefixtures("fours")
def test_what_is_known_beside_the_sound_is_read_without_it(tmp_path, monkeypatch):
    prepare(Numbers(lengths=tuple(range(500, 510)), bad=(2,)), tmp_path, progress=False)
    split = open_split("numbers", "train", tmp_path)
    expected = [[split[i][name] for i in range(9)] for name in INDEXED]
    assert [column.tolist() for column in split.columns(*INDEXED)] == expected


@pytest.mark.usefixtures("fours")
def test_every_shard_has_its_size_and_checksum_in_the_report(tmp_path):
    report = prepare(Numbers(lengths=(700,) * 6), tmp_path, progress=False)
    for name, told in report.shards["train"].items():
        content = (Path(report.directory) / name).read_bytes()
        assert told["num_bytes"] == len(content) and told["sha256"] == hashlib.sha256(content).hexdigest()
    assert [told["utterances"] for told in report.shards["train"].values()] == [4, 2]


@pytest.mark.usefixtures("fours")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"shard numbers-train.array_record-00001-of-00002 is missing in .*; bring it back"),
        (lambda file: os.truncate(file, file.stat().st_size // 2), r"has \d+ bytes, not \d+: it was cut off"),
    ],
)
def test_a_shard_that_is_missing_or_cut_off_is_an_error_before_anything_is_read(tmp_path, damage, message):
    report = prepare(Numbers(lengths=(700,) * 6), tmp_path, progress=False)
    damage(Path(report.directory) / "numbers-train.array_record-00001-of-00002")
    with pytest.raises(CorpusError, match=message):
        open_split("numbers", "train", tmp_path)


def test_too_long_is_rejected_by_max_seconds(tmp_path):
    report = prepare(Numbers(lengths=(16_000, 16_001)), tmp_path, progress=False, max_seconds=1.0)
    assert report.rejects[0].id == "1"
    assert report.rejects[0].reason.startswith("too long: 1.0 s is over 1 s")


def test_an_unexpected_failure_rejects_one_utterance_and_is_named(tmp_path):
    report = prepare(Numbers(lengths=(1000, -5, 1000)), tmp_path, progress=False)
    assert [reject.reason for reject in report.rejects] == ["ValueError: negative dimensions are not allowed"]
    assert report.splits["train"].kept == 2


def test_the_second_of_two_equal_ids_is_rejected(tmp_path):
    first, second, third = Numbers().splits()["train"]
    report = prepare(Given({"train": [first, second._replace(id="0"), third]}), tmp_path, progress=False)
    assert [reject.reason for reject in report.rejects] == ["duplicate: the id 0 occurs before"]
    records = open_split("given", "train", tmp_path)
    assert [records[i]["num_samples"] for i in range(2)] == [1000, 3000]


def test_preparing_again_says_so_and_reads_nothing(tmp_path, capsys, monkeypatch):
    first = prepare(Numbers(bad=(1,)), tmp_path, progress=False)
    monkeypatch.setattr(Numbers, "splits", lambda self: pytest.fail("the source was read again"))
    again = prepare(Numbers(bad=(1,)), tmp_path)
    assert again == first
    assert "numbers is prepared already" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"source": Numbers(lengths=(500,))}, {"max_seconds": 10.0}])
def test_a_name_stands_for_one_source(tmp_path, change):
    prepare(Numbers(), tmp_path, progress=False)
    with pytest.raises(CorpusError, match=r"give the new corpus another name or delete"):
        prepare(**{"source": Numbers(), "data_dir": tmp_path, "progress": False, **change})


KILLED = """
import os, signal, sys
sys.path[:] = {path!r}
from w2v2_jax.data import shards
from w2v2_jax.data.prepare import Processes, prepare
from prepare_test import Numbers
shards.UTTERANCES = 4
read = Numbers.read
def killed(self, number, max_seconds):
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, number, max_seconds)
Numbers.read = killed
prepare(Numbers(lengths=(600,) * 30), {folder!r}, progress=False, runner=Processes(1))
"""


@pytest.mark.usefixtures("fours")
def test_a_run_that_was_killed_goes_on_with_the_shards_that_are_not_there(tmp_path, monkeypatch, capsys):
    source = Numbers(lengths=(600,) * 30)
    prepare(source, tmp_path / "unbroken", progress=False)
    code = KILLED.format(path=sys.path, folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    with pytest.raises(CorpusError, match="no corpus 'numbers'"):
        open_split("numbers", "train", tmp_path)
    (corpus_dir("numbers", tmp_path) / shards.shard_file("numbers", "train", 1, 8)).unlink()
    read_now = []
    read = Numbers.read
    monkeypatch.setattr(Numbers, "read", lambda self, number, most: read_now.append(number) or read(self, number, most))
    assert prepare(source, tmp_path, runner=Processes(9)).splits["train"].kept == 30
    assert sorted(read_now) == [*range(4, 8), *range(12, 30)]
    assert "going on where an earlier run was stopped" in capsys.readouterr().err
    assert content_of(tmp_path) == content_of(tmp_path / "unbroken")
    left = {path.name for path in corpus_dir("numbers", tmp_path).iterdir()}
    assert not {"shards", "unfinished.json"} & left and not any(name.startswith(".unfinished") for name in left)


@pytest.mark.usefixtures("fours")
def test_a_process_that_is_killed_is_an_error_that_says_what_to_do(tmp_path):
    utterances = Numbers(lengths=(600,) * 20).splits()["train"]
    utterances[9] = utterances[9]._replace(read=killed)
    with pytest.raises(CorpusError, match=r"one of 2 processes was killed.* run the same again with fewer"):
        prepare(Given({"train": utterances}), tmp_path, progress=False, runner=Processes(2))


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("fours")
def test_unfinished_work_of_another_source_is_left_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Numbers, "read", interrupted)
        prepare(Numbers(), tmp_path, progress=False)
    with pytest.raises(CorpusError, match=r"was begun for Numbers.* not for .*; finish that, or delete the folder"):
        prepare(Numbers(lengths=(900,)), tmp_path, progress=False)
    assert prepare(Numbers(), tmp_path, progress=False).splits["train"].kept == 3


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("fours")
def test_a_shard_whose_utterances_have_changed_since_is_written_again(tmp_path, monkeypatch):
    utterances = Numbers(lengths=(600,) * 12).splits()["train"]
    with pytest.raises(KeyboardInterrupt):
        broken = [*utterances[:9], utterances[9]._replace(read=interrupted), *utterances[10:]]
        prepare(Given(Hidden({"train": broken})), tmp_path, progress=False)
    utterances[5] = utterances[5]._replace(text="CORRECTED")
    prepare(Given(Hidden({"train": utterances})), tmp_path, progress=False)
    split = open_split("given", "train", tmp_path)
    assert [split[i]["text"] for i in (4, 5, 9)] == ["T4", "CORRECTED", "T9"]


class Hidden(dict):
    """Splits whose repr doesn't tell what is in them, like the name of a folder."""

    def __repr__(self):
        return "Hidden"


@pytest.mark.usefixtures("fours")
def test_a_full_disk_is_named_and_nothing_written_is_lost(tmp_path, monkeypatch):
    source = Numbers(lengths=(600,) * 8)
    replace = os.replace

    def full(unfinished, target):
        if "00001-of" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(unfinished, target)

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="the corpus numbers could not be written"):
        patch.setattr("w2v2_jax.data.shards.os.replace", full)
        prepare(source, tmp_path, progress=False)
    assert prepare(source, tmp_path, progress=False).splits["train"].kept == 8


def test_a_corpus_that_someone_else_wrote_is_left_alone(tmp_path):
    (tmp_path / "numbers" / "1.0.0").mkdir(parents=True)
    with pytest.raises(CorpusError, match="is there but prepare did not write it"):
        prepare(Numbers(), tmp_path, progress=False)


def test_a_source_without_utterances_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match="has no utterance"):
        prepare(Given({"train": []}), tmp_path, progress=False)


def test_a_source_of_which_everything_is_rejected_is_an_error_with_reasons(tmp_path):
    with pytest.raises(
        CorpusError, match=r"every one of 3 utterances of numbers was rejected: /0.wav: broken: number 0"
    ):
        prepare(Numbers(bad=(0, 1, 2)), tmp_path, progress=False)
    assert os.listdir(tmp_path / "numbers") == []


@pytest.mark.parametrize("name", ["My Corpus", "9lives", "a/b", ""])
def test_a_name_that_tfds_could_not_find_again_is_refused(tmp_path, name):
    with pytest.raises(CorpusError, match="a corpus cannot be named"):
        prepare(Numbers(name=name), tmp_path, progress=False)


def test_the_terminal_shows_sizes_and_counts_of_reasons(tmp_path, capsys):
    prepare(Numbers(bad=(1,)), tmp_path)
    shown = capsys.readouterr().err
    assert "numbers/train" in shown
    assert "1 broken" in shown
    assert "rejects.tsv" in shown


def test_no_progress_is_silent(tmp_path, capfd):
    prepare(Numbers(bad=(1,)), tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")


def test_one_folder_of_every_kind_of_bad_file_still_gives_the_good_ones(tmp_path):
    """The table of inputs that soundfile passes on without a word, all in one corpus."""
    audio = tmp_path / "audio"
    audio.mkdir()
    good = (0.1 * np.random.default_rng(0).normal(size=16_000)).astype(np.float32)
    silent, offset = np.zeros_like(good), np.full_like(good, 0.5)
    nan = np.where(np.arange(16_000) == 5, np.nan, good)
    stereo = np.stack([good, -good], axis=1)
    soundfile.write(audio / "good.wav", good, 16_000)
    soundfile.write(audio / "float.wav", good, 16_000, subtype="FLOAT")
    soundfile.write(audio / "flac_named.wav", good, 16_000, format="FLAC")
    soundfile.write(audio / "nan.wav", nan, 16_000, subtype="FLOAT")
    for name, waveform in {"silent": silent, "offset": offset, "short": good[:300], "none": good[:0]}.items():
        soundfile.write(audio / f"{name}.wav", waveform, 16_000)
    soundfile.write(audio / "none.flac", good[:0], 16_000)
    soundfile.write(audio / "opposite.wav", stereo, 16_000)
    soundfile.write(audio / "long.flac", np.tile(good, 31), 16_000)
    for name in ("half.wav", "half.mp3", "half.flac"):
        soundfile.write(audio / name, np.tile(good, 8), 16_000)
        os.truncate(audio / name, Path(audio / name).stat().st_size // 2)
    (audio / "empty.wav").write_bytes(b"")
    (audio / "page.mp3").write_bytes(b"<html><body>404</body></html>")
    (audio / "pointer.flac").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (audio / "raw.pcm").write_bytes((good * 2**15).astype("<i2").tobytes())
    (audio / "video.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(4000))
    report = prepare(AudioFolder(str(audio), "folder", valid_percent=0.0), tmp_path, progress=False)
    assert report.splits["train"].kept == 3
    assert report.splits["train"].rejected == 16
    assert {Path(reject.path).name for reject in report.rejects} == {
        path.name for path in audio.iterdir() if path.name not in ("good.wav", "float.wav", "flac_named.wav")
    }
    records = open_split("folder", "train", tmp_path)
    for i in range(3):
        np.testing.assert_allclose(decode_flac(records[i]["audio"]), good, atol=1e-4)
