"""TPU chips, and the slices of a pod that one can have."""

import difflib
import math
import re
from typing import NamedTuple


class Chip(NamedTuple):
    """What one chip can do.

    `num_cores` TensorCores (they make the number in names such as v4-128), `flops` of dense bfloat16 a second,
    `hbm_bytes` of memory, `hbm_bandwidth` and `ici_bandwidth` in bytes a second (the latter over all links, one way),
    `clock` in cycles a second, `num_axes` of the torus, `pod_chips` in the largest slice.
    """

    name: str
    num_cores: int
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    clock: float
    num_axes: int
    pod_chips: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 2, 275e12, 32 * 2**30, 1228e9, 300e9, 1.05e9, num_axes=3, pod_chips=4096),
        Chip("v5e", 1, 197e12, 16 * 2**30, 819e9, 200e9, 1.5e9, num_axes=2, pod_chips=256),
        Chip("v5p", 2, 459e12, 95 * 2**30, 2765e9, 600e9, 1.75e9, num_axes=3, pod_chips=8960),
        Chip("v6e", 1, 918e12, 32 * 2**30, 1640e9, 400e9, 1.75e9, num_axes=2, pod_chips=256),
    )
}
"""As published on Google Cloud's page of each TPU version (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e), ICI being half
of the bidirectional bandwidth given there. Clocks follow from the peaks: a cycle makes 2 * 128 * 128 operations in each
of v5e's four matrix units, twice as many on v4 and v5p (two cores), four times as many on v6e (units of 256 x 256)."""


class Slice(NamedTuple):
    """Chips that are linked to each other, `shape` of them along each axis: v5e:16x16."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


ACCEPTED = "v5e:4x4, v6e:16x16, v4:4x4x4 or v5p:2x2x1 (chips along each axis), v5e-256, v6e-8 (chips), v4-128, v5p-64 (two cores a chip)"  # noqa: E501
"""Examples of every way to name a slice."""


def parse_slice(name: str) -> Slice:
    """The slice that a name such as v5e:16x16 or v4-128 means.

    As in the names that Google Cloud rents them by, the number behind a dash counts TensorCores: 64 chips in v4-128.

    Raises:
        ValueError: for no such chip, number or shape.
    """
    match = re.fullmatch(r"(?P<chip>[a-z0-9]+)(?::(?P<shape>\d+(?:x\d+)*)|-(?P<cores>\d+))", name)
    if not match:
        raise ValueError(f"{name!r} names no TPU slice; give one such as {ACCEPTED}")
    if match["chip"] not in CHIPS:
        nearest = difflib.get_close_matches(match["chip"], CHIPS, n=1, cutoff=0)[0]
        raise ValueError(f"no TPU {match['chip']!r} is known, did you mean {nearest}? Known are {', '.join(CHIPS)}")
    chip = CHIPS[match["chip"]]
    shape = tuple(map(int, match["shape"].split("x"))) if match["shape"] else _usual_shape(chip, int(match["cores"]))
    if len(shape) != chip.num_axes or not 1 <= math.prod(shape) <= chip.pod_chips:
        example = "x".join(map(str, _usual_shape(chip, 16 * chip.num_cores)))
        raise ValueError(
            f"{name} is no slice of a {chip.name} pod, which has {chip.num_axes} axes and at most {chip.pod_chips} "
            f"chips; give one such as {chip.name}:{example}"
        )
    return Slice(chip, shape)


def _usual_shape(chip: Chip, num_cores: int) -> tuple[int, ...]:
    """The most compact of the shapes whose sides are powers of two."""
    num_chips, rest = divmod(num_cores, chip.num_cores)
    exponent = num_chips.bit_length() - 1
    if rest or num_chips != 2 ** max(exponent, 0):
        raise ValueError(
            f"a {chip.name} slice of {num_cores} TensorCores ({chip.num_cores} a chip) has no usual shape; give its "
            f"shape, such as {chip.name}:{'x'.join(['4'] * chip.num_axes)}"
        )
    sides = [2 ** ((exponent + axis) // chip.num_axes) for axis in range(chip.num_axes)]
    # Hosts have 2 x 2 chips: an axis of one chip comes last.
    return tuple(sorted(sides, key=lambda side: (side == 1, side)))
