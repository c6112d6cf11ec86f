import importlib.util
import sys
from typing import ClassVar

import pytest
from prepare_test import Numbers, content_of

from w2v2_jax.data import shards
from w2v2_jax.data.beam_pipeline import Beam
from w2v2_jax.data.prepare import prepare

needs_beam = pytest.mark.skipif(not importlib.util.find_spec("apache_beam"), reason="needs apache_beam")
LOCAL = Beam(("--runner=DirectRunner",))
# By the protocol that Flink and Spark are spoken to, to a server within this process.
PORTABLE = Beam(("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"))


class Watched(Numbers):
    """Tells what is read of it, and is interrupted at the numbers in `stops`."""

    seen: ClassVar[list[int]] = []
    stops: ClassVar[set[int]] = set()

    def read(self, number, max_seconds):
        if number in self.stops:
            raise KeyboardInterrupt
        self.seen.append(number)
        return super().read(number, max_seconds)


@needs_beam
@pytest.mark.parametrize("runner", [LOCAL, PORTABLE], ids=["direct", "portable"])
def test_a_pipeline_writes_what_threads_write(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "UTTERANCES", 4)
    source = Numbers(lengths=tuple(range(500, 530)), bad=(3, 17))
    reports = [prepare(source, tmp_path / "beam", progress=False, runner=runner)]
    reports.append(prepare(source, tmp_path / "threads", progress=False))
    assert reports[0].splits == reports[1].splits and reports[0].rejects == reports[1].rejects
    assert content_of(tmp_path / "beam") == content_of(tmp_path / "threads")


@needs_beam
def test_shards_that_are_there_are_not_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "UTTERANCES", 4)
    source = Watched(lengths=(600,) * 12)
    Watched.stops.add(9)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path, progress=False)
    Watched.stops.clear()
    Watched.seen.clear()
    assert prepare(source, tmp_path, progress=False, runner=LOCAL).splits["train"].kept == 12
    assert sorted(Watched.seen) == [8, 9, 10, 11]


def test_without_beam_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"pip install 'w2v2_jax\[beam\]'"):
        prepare(Numbers(), tmp_path, progress=False, runner=Beam())
