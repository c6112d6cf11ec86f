"""Several processes as one run, on JAX's own runtime: how they meet, and how they make sure to want the same."""

import hashlib
import json
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

Json = Any

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


class DisagreementError(ValueError):
    """Processes of one run have been given different things."""


def meet() -> None:
    """Makes this process one of several, before anything else is done with JAX.

    On TPU pods, under SLURM, Open MPI and Kubernetes, JAX finds by itself who the others are. Elsewhere the environment
    says it: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        ValueError: where some of the three variables are given and others aren't, or a count isn't a number.
    """
    given = [name for name in (ADDRESS, COUNT, INDEX) if name in os.environ]
    if COUNT not in given and INDEX not in given:
        jax.distributed.initialize()
        return
    if len(given) < 3:
        raise ValueError(f"only {' and '.join(given)} of {ADDRESS}, {COUNT} and {INDEX} are set; set all three")
    for name in (COUNT, INDEX):
        if not os.environ[name].isdecimal():
            raise ValueError(f"{name}={os.environ[name]!r} is not a number; give one, 0 for the first process")
    jax.distributed.initialize(os.environ[ADDRESS], int(os.environ[COUNT]), int(os.environ[INDEX]))


def gathered(value: Json) -> list[Json]:
    """What each of the processes, in their order, gives as `value`."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = _all(np.array([text.size]))
    texts = _all(np.pad(text, (0, sizes.max() - text.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes[:, 0], strict=True)]


def _all(numbers: np.ndarray) -> np.ndarray:
    return np.reshape(multihost_utils.process_allgather(numbers), (jax.process_count(), -1))


def check_agreement(value: dict[str, Json]) -> None:
    """Proves that all processes were given the same, by name, so that none waits for a step that another never does.

    Raises:
        DisagreementError: on every process alike, naming what differs and where.
    """
    digests = {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in value.items()
    }
    first, *others = gathered(digests)
    for index, other in enumerate(others, start=1):
        for name in first:
            if other[name] != first[name]:
                ours = [json.dumps(part) for part in gathered(value[name])]
                raise DisagreementError(
                    f"process {index} has another {name} than process 0: {ours[index]} against {ours[0]}; give all "
                    "processes the same files and settings"
                )
