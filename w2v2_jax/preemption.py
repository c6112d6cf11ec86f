"""Leaving in time: a run that is told to end saves, exits with status 0, and goes on when it is started again."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

Requested = Callable[[int], bool]


class Preempted(SystemExit):
    """A run was told to end and has saved: nothing is wrong, so the exit status of an uncaught one is 0."""

    def __init__(self, step: int):
        super().__init__(0)
        self.step = step

    def __str__(self) -> str:
        return f"told to end, and saved at step {self.step}; start again to go on"


@contextlib.contextmanager
def preemption() -> Iterator[Requested]:
    """`requested(step)`: whether to save now, after `step` updates, and leave. To be asked at every step.

    A process by itself is told by SIGTERM, which clouds and clusters send before they take a machine away; further ones
    change nothing while it saves (Ctrl-C, as ever, ends it at once). Of several processes any may be told, by SIGTERM
    or by the cloud: JAX passes it on, and all of them get True at the same step, soon after.

    Signals come to the main thread; a run in another thread isn't told.
    """
    if jax.distributed.is_initialized():
        yield multihost_utils.reached_preemption_sync_point
    elif threading.current_thread() is not threading.main_thread():
        yield lambda step: False
    else:
        with _noticing(signal.SIGTERM) as received:
            yield lambda step: received.is_set()


@contextlib.contextmanager
def _noticing(number: signal.Signals) -> Iterator[threading.Event]:
    received = threading.Event()
    before = signal.signal(number, lambda *_: received.set())
    try:
        yield received
    finally:
        signal.signal(number, before or signal.SIG_DFL)
