import importlib.util

import pytest

from w2v2_jax.planning import compiler
from w2v2_jax.planning.chips import parse_slice

needs_compiler = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")


@pytest.mark.parametrize(
    ("message", "wanted", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (40.00G) "
            "exceeds available HBM (15.75G).",
            40 * 2**30,
            15.75 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
            "Used 16.50G of 512.0M hbm. Exceeded hbm capacity by 16.00G.\n\nTotal hbm usage >= 17.0G",
            16.5 * 2**30,
            2**29,
        ),
    ],
)
def test_a_program_that_is_too_large_says_what_it_wanted(message, wanted, available):
    error = compiler.explain_failure(message)
    assert isinstance(error, compiler.TooLargeError)
    assert (error.wanted, error.available) == (wanted, available)


@pytest.mark.parametrize("message", ["INTERNAL: Mosaic failed\nat line 3", "RESOURCE_EXHAUSTED: vmem 17.5M of 16.0M"])
def test_any_other_failure_is_told_in_a_line(message):
    error = compiler.explain_failure(message)
    assert isinstance(error, ValueError)
    assert str(error) == f"the TPU compiler gives up: {message.splitlines()[0]}"


def test_without_the_compiler_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'w2v2_jax\[tpu-plan\]'"):
        compiler.devices_of(parse_slice("v5e:4x4"))


@needs_compiler
@pytest.mark.parametrize("name", ["v4-128", "v4:1x1x1", "v5e:1x1", "v5e-2", "v5e-256", "v5p-128", "v6e-8"])
def test_every_chip_of_a_slice_is_a_device(name):
    slice_ = parse_slice(name)
    assert len(compiler.devices_of(slice_)) == slice_.num_chips


@needs_compiler
def test_a_shape_that_hosts_cannot_make_up_is_an_error():
    with pytest.raises(ValueError, match="knows no slice v5e:3x5"):
        compiler.devices_of(parse_slice("v5e:3x5"))
