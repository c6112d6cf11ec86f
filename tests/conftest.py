"""Tests run on the CPU, as eight devices, and refuse silent rank promotion."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs compile in half the time without fusion emitters, and once in a session, child processes included.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
PROGRAMS = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules in which only the maths counts: programs compile in a third of the time, and run slower."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
