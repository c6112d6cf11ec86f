"""Tests run on the CPU, as eight devices, and refuse silent rank promotion."""

import os
import subprocess
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs compile in half the time without fusion emitters, and once in a session, child processes included.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
if "PYTEST_XDIST_WORKER" not in os.environ:
    PROGRAMS = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules in which only the maths counts: programs compile in a third of the time, and run slower."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a mounted disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"may not mount a disk: {mount.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
