"""Beam searches side by side: flashlight holds Python's lock, so each one runs in a process of its own."""

import collections
import dataclasses
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType

from w2v2_jax.decoding.beam import LogProbs, Search
from w2v2_jax.decoding.hypotheses import Hypothesis, Weights

AHEAD = 4
"""Clips that wait for each worker, so that none is idle and memory is bounded."""


class Workers:
    """Processes that hold one search each: `with Workers(search, 8) as workers`.

    They are spawned, never forked, for threads of JAX do not survive a fork. So a script that makes them does it under
    `if __name__ == "__main__"`.
    """

    def __init__(self, search: Search, num_workers: int):
        if num_workers < 1:
            raise ValueError(f"{num_workers} workers cannot decode; give 1 or more")
        self._ahead = AHEAD * num_workers
        # What is loaded cannot go to another process, so a copy goes that has not loaded.
        self._executor = ProcessPoolExecutor(
            num_workers, multiprocessing.get_context("spawn"), _keep, (dataclasses.replace(search),)
        )

    def decode(self, log_probs: Iterable[LogProbs], weights: Weights) -> Iterator[list[Hypothesis]]:
        """What `search.reweighted(weights).decode` says of each clip, in their order and as it comes.

        Errors of a search are raised here; BrokenProcessPool if a worker was killed, most likely for want of memory.
        """
        pending = collections.deque()
        clips = iter(log_probs)
        try:
            while True:
                room = self._ahead - len(pending)
                pending.extend(self._executor.submit(_decode, each, weights) for each in itertools.islice(clips, room))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for each in pending:
                each.cancel()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)


def decode_all(search: Search, log_probs: Iterable[LogProbs], num_workers: int) -> Iterator[list[Hypothesis]]:
    """What `search.decode` says of each clip, in their order and as it comes, by `num_workers` processes.

    Each loads the lexicon and the model for itself; only KenLM's binary, not ARPA, is shared between them.
    """
    with Workers(search, num_workers) as workers:
        yield from workers.decode(log_probs, search.weights)


_search: Search


def _keep(search: Search) -> None:
    global _search
    _search = search


def _decode(log_probs: LogProbs, weights: Weights) -> list[Hypothesis]:
    return _search.reweighted(weights).decode(log_probs)
