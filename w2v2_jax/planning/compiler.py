"""The TPU compiler, on a machine that has no TPU."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from w2v2_jax.planning.chips import Slice

ENVIRONMENT = {
    # Ask no metadata server which TPU this machine has, and let several processes plan at once.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # The search for convolutions' tilings recurses deeper than the compiler's own threads have room for.
    "LIBTPU_INIT_ARGS": "--fibers_default_thread_stack_size=8388608",
}
"""What libtpu needs to hear where there is no TPU, unless the user says otherwise."""

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TooLargeError(Exception):
    """A program that takes `wanted` bytes of HBM, of which there are `available`."""

    def __init__(self, wanted: int, available: int):
        super().__init__(f"{wanted / 2**30:.2f} GiB of HBM wanted, {available / 2**30:.2f} GiB there")
        self.wanted, self.available = wanted, available


def use_no_accelerator() -> None:
    """Keeps this process off any accelerator: arrays are made on the CPU. Call it before JAX makes the first."""
    jax.config.update("jax_platforms", "cpu")


def devices_of(slice_: Slice) -> list[jax.Device]:
    """The chips of a slice to compile for; they compute nothing.

    Raises:
        ValueError: without libtpu, and for a shape that the compiler doesn't know.
    """
    if not importlib.util.find_spec("libtpu"):
        raise ValueError("planning needs the TPU compiler: pip install 'w2v2_jax[tpu-plan]'")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    hosts = (*(min(2, side) for side in slice_.shape[:2]), 1)
    # Both cores of a v4 make one device, as they do for JAX on v4 machines and on v5p in any case.
    cores = {"chip_config_name": "megacore"} if slice_.chip.num_cores == 2 else {}
    try:
        topology = topologies.get_topology_desc(str(slice_), "tpu", chips_per_host_bounds=hosts, **cores)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"the TPU compiler knows no slice {slice_}: {_first_line(error)}") from error
    return list(topology.devices)


def compile_for_tpu(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """The compiled program.

    Raises:
        TooLargeError: where it doesn't fit into HBM.
        ValueError: where the compiler fails for any other reason.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise explain_failure(str(error)) from error


def explain_failure(message: str) -> TooLargeError | ValueError:
    """The error behind what the compiler says.

    That HBM is short it says as "Used 25.26G of 15.48G hbm", or "required (40.00G) exceeds available HBM (15.75G)".
    """
    sizes = re.search(r"([\d.]+)([KMGT])\b[^\n]*?([\d.]+)([KMGT])\b", message)
    if "RESOURCE_EXHAUSTED" in message and "hbm" in message.lower() and sizes:
        wanted, unit, available, available_unit = sizes.groups()
        return TooLargeError(_bytes(wanted, unit), _bytes(available, available_unit))
    return ValueError(f"the TPU compiler gives up: {message.splitlines()[0]}")


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * _UNITS[unit])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
