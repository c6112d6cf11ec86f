import pytest

from w2v2_jax.planning.chips import CHIPS, parse_slice


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("v5e:16x16", (16, 16)),
        ("v4:4x4x8", (4, 4, 8)),
        ("v5e-256", (16, 16)),
        ("v6e-256", (16, 16)),
        ("v6e-8", (2, 4)),
        ("v5e-1", (1, 1)),
        ("v4-128", (4, 4, 4)),
        ("v5p-128", (4, 4, 4)),
        ("v4-8", (2, 2, 1)),
        ("v5p-64", (2, 4, 4)),
    ],
)
def test_a_slice_is_named_by_its_shape_or_its_number_of_cores(name, shape):
    assert parse_slice(name).shape == shape


def test_v4_and_v5p_are_named_after_cores_of_which_a_chip_has_two():
    assert [parse_slice(name).num_chips for name in ("v4-128", "v5p-128", "v5e-128", "v6e-128")] == [64, 64, 128, 128]


def test_a_slice_is_written_as_it_is_parsed():
    assert str(parse_slice("v5p-128")) == "v5p:4x4x4"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "names no TPU slice; give one such as v5e:4x4"),
        ("v5e", "names no TPU slice"),
        ("v66e:4x4", "did you mean v6e\\? Known are v4, v5e, v5p, v6e"),
        ("v5e:4x4x4", "which has 2 axes and at most 256 chips; give one such as v5e:4x4"),
        ("v6e:32x32", "at most 256 chips"),
        ("v6e:0x4", "at most 256 chips"),
        ("v5p-6", "6 TensorCores \\(2 a chip\\) has no usual shape; give its shape, such as v5p:4x4x4"),
        ("v4-7", "no usual shape"),
        ("v5e-0", "no usual shape"),
    ],
)
def test_no_such_slice_says_which_there_are(name, message):
    with pytest.raises(ValueError, match=message):
        parse_slice(name)


def test_peaks_are_whole_numbers_of_operations_a_cycle():
    in_a_cycle = {name: chip.flops / chip.clock / (2 * 128 * 128) for name, chip in CHIPS.items()}
    assert in_a_cycle == pytest.approx({"v4": 8, "v5e": 4, "v5p": 8, "v6e": 16}, rel=3e-3)
