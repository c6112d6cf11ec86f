"""Corpora in a bucket, for which a server on this machine stands in."""

import asyncio
import logging.handlers
import queue
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prepare_test import KILLED, Numbers

from w2v2_jax.data import shards
from w2v2_jax.data.corpora import INDEXED, REPORT, CorpusError, corpus_dir, open_split
from w2v2_jax.data.pipeline import Clips
from w2v2_jax.data.prepare import Processes, prepare
from w2v2_jax.data.records import Corpus
from w2v2_jax.data.remote import UnreachableError
from w2v2_jax.preflight.corpus import open_parts, shard_check

pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")

# Of a shard that is larger than a megabyte its end is read first.
SOURCE = Numbers(lengths=(*(600,) * 24, *(300_000,) * 4, 600, 600), bad=(3, 17))
BUCKET = "gs://bucket/corpora"


@pytest.fixture(scope="module")
def port():
    """A free port, where both libraries that talk to buckets look for Google's, in child processes too."""
    with socket.socket() as taken, pytest.MonkeyPatch.context() as patch:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        taken.close()
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{number}")
        patch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{number}")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks for credentials
        yield number


@pytest.fixture
def server(port):
    """The process of an empty bucket."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("bucket.py"), f"{port}"], stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        with socket.socket() as knock:
            if not knock.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def fours(monkeypatch):
    """Shards of four utterances."""
    monkeypatch.setattr(shards, "UTTERANCES", 4)


@pytest.fixture
def soon_given_up(monkeypatch):
    """A bucket is asked again at once, where the library would take half a minute over it."""
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0)))


def records_of(data_dir):
    split = open_split("numbers", "train", data_dir)
    columns = [column.tolist() for column in split.columns(*INDEXED)]
    return [{**split[i], "phones": None} for i in range(len(split))], columns


@pytest.mark.usefixtures("server", "fours")
def test_a_corpus_in_a_bucket_is_the_one_on_disk(tmp_path, capsys):
    places = {BUCKET: Processes(2), tmp_path: Processes(1)}
    reports = [prepare(SOURCE, place, progress=False, runner=runner) for place, runner in places.items()]
    assert reports[0].splits == reports[1].splits and reports[0].rejects == reports[1].rejects
    assert records_of(BUCKET) == records_of(tmp_path)
    assert [part.defect for part in open_parts("numbers", "", BUCKET)] == [""]
    assert shard_check("numbers", ["train"], BUCKET, lambda count: None).verdict == "sound"
    clips = [Clips(Corpus("numbers", "train", place), 4, 500, False, min_samples=400) for place in places]
    for ours, theirs in zip(*(each.epoch() for each in clips), strict=True):
        np.testing.assert_array_equal(ours.waveform, theirs.waveform)
    prepare(SOURCE, BUCKET)
    assert "numbers is prepared already" in capsys.readouterr().err


@pytest.mark.usefixtures("server", "fours")
def test_a_run_into_a_bucket_that_was_killed_goes_on(tmp_path, capsys):
    code = KILLED.format(path=sys.path, folder=BUCKET)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    with pytest.raises(CorpusError, match="no corpus 'numbers'"):
        open_split("numbers", "train", BUCKET)
    source = Numbers(lengths=(600,) * 30)
    assert prepare(source, BUCKET, runner=Processes(1)).splits["train"].kept == 30
    assert "going on where an earlier run was stopped" in capsys.readouterr().err
    prepare(source, tmp_path, progress=False, runner=Processes(1))
    assert records_of(BUCKET) == records_of(tmp_path)


@pytest.mark.usefixtures("server")
def test_a_corpus_in_a_bucket_that_is_prepared_again_is_noticed():
    prepare(SOURCE, BUCKET, progress=False)
    split = open_split("numbers", "train", BUCKET)
    split.watch.look()
    report = corpus_dir("numbers", BUCKET) / REPORT
    report.write_text(report.read_text() + "\n")
    with pytest.raises(CorpusError, match="was prepared again or removed"):
        split.watch.look()


@pytest.mark.usefixtures("soon_given_up")
def test_a_bucket_that_does_not_answer_is_an_error_that_names_it(server, monkeypatch):
    shown = queue.SimpleQueue()
    monkeypatch.setattr(logging.root, "handlers", [logging.handlers.QueueHandler(shown)])
    prepare(SOURCE, BUCKET, progress=False)
    split = open_split("numbers", "train", BUCKET)
    server.kill()
    server.wait()
    for attempt in (lambda: prepare(SOURCE, BUCKET, progress=False), lambda: open_split("numbers", "train", BUCKET)):
        with pytest.raises(UnreachableError, match=r"gs://bucket/corpora.* can't be reached: .* run the same again"):
            attempt()
    with pytest.raises(UnreachableError, match="index can't be reached"):
        split.columns("id")
    # array_record goes on asking for longer than a test can wait before it says so.
    monkeypatch.setattr(type(split.records), "__getitem__", _given_up)
    with pytest.raises(UnreachableError):
        split[0]
    assert "gcsfs" not in {shown.get().name for _ in range(shown.qsize())}


def _given_up(records, index):
    raise RuntimeError("Retry policy exhausted")


@pytest.mark.parametrize("open_corpus", [open_split, open_parts])
def test_from_a_bucket_that_is_not_googles_nothing_can_be_read(open_corpus):
    with pytest.raises(CorpusError, match=r"can't be read from s3://bucket, only from gs:// and disks; mount it"):
        open_corpus("numbers", "train", "s3://bucket")
