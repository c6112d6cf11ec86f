"""Several processes on this machine that are to each other what the hosts of a pod are."""

import multiprocessing
import os
import pickle
import re
import socket
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from typing import Any

import jax


def start(num_processes: int, num_devices: int, function: Callable[..., None], *args: Any) -> list[SpawnProcess]:
    """Processes of `num_devices` devices each, in which `function(*args)` runs with `jax.distributed` initialised."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    # Imported there only once JAX knows of the other processes: a test's file may compute.
    call = pickle.dumps((function, args))
    processes = [
        context.Process(target=_one, args=(port, num_processes, place, num_devices, call))
        for place in range(num_processes)
    ]
    for process in processes:
        process.start()
    return processes


def join(processes: list[SpawnProcess]) -> None:
    """Waits for their end; if one fails the others, which may wait for it, are ended."""
    while any(process.is_alive() for process in processes):
        time.sleep(0.02)
        if any(process.exitcode for process in processes):
            time.sleep(2)  # for what the others have to say
            for process in processes:
                process.kill()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def run(num_processes: int, num_devices: int, function: Callable[..., None], *args: Any) -> None:
    """`function(*args)` on all of them, to the end."""
    join(start(num_processes, num_devices, function, *args))


def _one(port: int, num_processes: int, place: int, num_devices: int, call: bytes) -> None:
    os.environ["XLA_FLAGS"] = re.sub(r"device_count=\d+", f"device_count={num_devices}", os.environ["XLA_FLAGS"])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=num_processes, process_id=place)
    assert (jax.device_count(), jax.local_device_count()) == (num_processes * num_devices, num_devices)
    function, args = pickle.loads(call)
    function(*args)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]
