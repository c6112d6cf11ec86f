"""Endless or single passes over random-access rows, cut into batches of which each process gets its share, by Grain."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import UInt16

from w2v2_jax.batches import Batch, Levels
from w2v2_jax.data.buckets import Schedule, round_up

# The arrays of a batch, without the batch axis.
Row = tuple[np.ndarray | np.integer | Levels, ...]


@runtime_checkable
class Rows(Protocol):
    """Random access to rows of one shape."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Row: ...


FEW = 2**16
"""Among as many places Grain looks for the next of fewer rows, one by one: that takes 1 ms for 50 rows, 3 ms for 10."""


class Host(NamedTuple):
    """A process of a run: `index` of `count`."""

    index: int
    count: int


def this_host() -> Host:
    """The process we are in, as JAX counts them."""
    return Host(jax.process_index(), jax.process_count())


class BatchIterator:
    """Endless batches of one process; `get_state` and `set_state` save and restore its place exactly."""

    def __init__(self, batches: grain.MapDataset, num_workers: int):
        self._batches, self._num_workers = batches, num_workers
        self._step = 0
        self._ahead = None

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        if self._ahead is None:
            self._ahead = read_ahead(self._batches[self._step :], self._num_workers)
        batch = next(self._ahead)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The number of batches taken so far: the same on every process, and valid on any number of them."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues after the batch that was the last one when `state` was taken."""
        self.close()
        self._step = state["step"]

    def close(self) -> None:
        """Stops reading ahead; another batch starts it again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def share(rows: grain.MapDataset, batch_size: int, host: Host) -> grain.MapDataset:
    """The host's rows of each global batch: consecutive ones, so the hosts in their order make up the batch.

    Raises ValueError if the hosts can't have equally many.
    """
    if batch_size % host.count:
        raise ValueError(
            f"a batch of {batch_size} rows can't be shared equally by {host.count} processes; "
            f"make the batch size a multiple of {host.count}"
        )
    # There is no remainder; but without `drop_remainder` Grain's length of endless batches of one row overflows.
    return rows.batch(batch_size // host.count, drop_remainder=True)[host.index :: host.count]


def shuffled(parts: Sequence[tuple[Rows, int | float]], *seed: int) -> grain.MapDataset:
    """Endless rows of several parts, each as often as its weight says to within a hundredth, in an even mixture.

    Every part is an endless stream of its own rows, in another order each epoch of its own.
    """
    streams = [_in_epochs(rows, seed_from(*seed, number)) for number, (rows, _) in enumerate(parts)]
    # A mixture of one would give the same rows, but draw other crops from the same seed.
    return grain.MapDataset.mix(streams, [weight for _, weight in parts]) if len(streams) > 1 else streams[0]


def _in_epochs(rows: Rows, seed: int) -> grain.MapDataset:
    """Endless rows, in another order each epoch."""
    if len(rows) >= FEW:
        return grain.MapDataset.source(rows).seed(seed).shuffle().repeat()
    return grain.MapDataset.range(sys.maxsize).seed(seed).map(functools.partial(_row_of_epoch, rows, seed))


def _row_of_epoch(rows: Rows, seed: int, index: int) -> Any:
    epoch, place = divmod(index, len(rows))
    return rows[int(_order(len(rows), seed, epoch)[place])]


@functools.lru_cache(maxsize=256)
def _order(num_rows: int, seed: int, epoch: int) -> UInt16[np.ndarray, " row"]:
    return np.random.default_rng((seed, epoch)).permutation(num_rows).astype(np.uint16)


def scheduled(buckets: Sequence[Rows], batch_sizes: Sequence[int], host: Host, seed: int) -> grain.MapDataset:
    """Endless batches, each of one bucket's rows: every row once an epoch, what fills no batch comes in the next."""
    streams = [shuffled([(rows, 1.0)], seed, number) for number, rows in enumerate(buckets)]
    return in_turn(streams, [len(rows) for rows in buckets], batch_sizes, host, seed)


def in_turn(
    streams: Sequence[grain.MapDataset],
    rows_per_epoch: Sequence[int | float],
    batch_sizes: Sequence[int],
    host: Host,
    seed: int,
) -> grain.MapDataset:
    """Endless batches, each of one stream's rows; an epoch has `rows_per_epoch` of each stream, as `Schedule` says."""
    batches = [share(stream, size, host) for stream, size in zip(streams, batch_sizes, strict=True)]
    schedule = Schedule(tuple(rows_per_epoch), tuple(batch_sizes), seed)
    return grain.MapDataset.range(sys.maxsize).map(functools.partial(_scheduled_batch, schedule, batches))


def _scheduled_batch(schedule: Schedule, streams: list[grain.MapDataset], step: int) -> Row:
    bucket, position = schedule[step]
    return streams[bucket][position]


def in_order(
    buckets: Sequence[Rows], batch_sizes: Sequence[int], host: Host, fillers: Sequence[Row]
) -> grain.MapDataset:
    """Every row once, bucket by bucket, the last batch of each completed with its filler."""
    parts = zip(buckets, batch_sizes, fillers, strict=True)
    return grain.MapDataset.concatenate(
        [share(filled_up(grain.MapDataset.source(rows), size, filler), size, host) for rows, size, filler in parts]
    )


def filled_up(rows: grain.MapDataset, batch_size: int, filler: Row) -> grain.MapDataset:
    """All rows in their order, then filler up to a whole number of batches."""
    return grain.MapDataset.range(round_up(len(rows), batch_size)).map(functools.partial(_row_or_filler, rows, filler))


def _row_or_filler(rows: grain.MapDataset, filler: Row, place: int) -> Row:
    return rows[place] if place < len(rows) else filler


def seed_from(*numbers: int) -> int:
    """One 32-bit seed out of several numbers: Grain takes no more, and buckets must not be shuffled alike."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def read_ahead(batches: grain.MapDataset, num_workers: int) -> grain.DatasetIterator:
    """Prepares the next batches in threads (FLAC decoding releases the GIL), or in threads of worker processes."""
    # Grain would keep 500 elements ready, which here are whole batches.
    ahead = batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=4))
    if num_workers:
        # Grain's workers read absl's flags, which nobody has parsed in a notebook, a test or a plain script.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=num_workers)
        ahead = ahead.mp_prefetch(options, worker_init_fn=_live_as_long_as_the_run)
    return iter(ahead)


def _live_as_long_as_the_run(_index: int, _count: int) -> None:
    """A worker ends when its run says so or is gone, however that came about, and at nothing else.

    Clusters send signals to all processes at once, while a run that is told to end still takes a step and saves.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    run = multiprocessing.parent_process()
    assert run is not None
    run.join()
    os._exit(0)
