"""Corpora prepared by Apache Beam, on as many machines as its runner has: Dataflow, Flink, Spark, or processes here."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from w2v2_jax.data.prepare import Bars, Work
from w2v2_jax.data.shards import shards_of, write_shard


@dataclasses.dataclass(frozen=True)
class Beam:
    """Shards written by a Beam pipeline with these `options`: `("--runner=FlinkRunner", "--flink_master=host:8081")`.

    The workers need this package, the audio at the same paths, and a folder that all of them can write to. They go
    through the source themselves, so its utterances never pass through the machine that starts the pipeline.
    """

    options: tuple[str, ...] = ()

    def __call__(self, work: Work, bars: Bars) -> None:
        """Writes the shards that aren't there yet; Beam shows its own progress, and tries again what failed."""
        beam = _beam()
        with beam.Pipeline(argv=list(self.options)) as pipeline:
            _ = (
                pipeline
                | "source" >> beam.Create([(work.source, work.max_seconds)])
                | "shards" >> beam.FlatMap(_shards)
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.Map(_write, work.folder)
            )
        for split, utterances in work.splits.items():
            bars.advance(split, len(utterances))


def _beam() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise ImportError("Apache Beam is not here: pip install 'w2v2_jax[beam]'") from error
    return apache_beam


# Of `Any`: Beam reads annotations, compares them with its guesses and fails at protocols.
def _shards(work: Any) -> Iterator[Any]:
    source, max_seconds = work
    return shards_of(source.name, source.splits(), max_seconds)


def _write(shard: Any, folder: str) -> str:
    return write_shard(shard, folder).file
