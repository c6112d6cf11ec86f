"""The collectives of a compiled program: which run, among how many chips, over how many bytes."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from w2v2_jax.planning.hlo import Computation, Instruction, Module, num_bytes

CROSSINGS = {
    "all-reduce": lambda chips: 2 * (chips - 1) / chips,
    "all-gather": lambda chips: (chips - 1) / chips,
    "reduce-scatter": lambda chips: (chips - 1) / chips,
    "all-to-all": lambda chips: (chips - 1) / chips,
    "collective-permute": lambda chips: 1,
}
"""The share of a collective's bytes that leaves each of so many chips on a ring."""

_SCATTERING = "all-reduce-scatter"


class Collective(NamedTuple):
    """One collective among groups of `num_chips`; `num_bytes` of the whole array that is gathered, summed or cut."""

    kind: str
    num_chips: int
    num_bytes: int

    @property
    def sent(self) -> float:
        """Bytes that leave each chip."""
        return CROSSINGS[self.kind](self.num_chips) * self.num_bytes


def collectives_of(computation: Computation, module: Module) -> list[Collective]:
    """What runs when a computation does, but for its loops, branches and calls.

    A collective that is spread over several fusions, so that it runs beside their arithmetic, is one.
    """
    found = {}
    for instruction in computation.instructions.values():
        found |= dict(_found(instruction, computation, module))
    return list(found.values())


def _found(instruction: Instruction, computation: Computation, module: Module) -> Iterator[tuple[str, Collective]]:
    if instruction.opcode == "fusion":
        [called] = instruction.called("calls")
        inner = module.computations[called]
        for each in inner.instructions.values():
            for _, collective in _found(each, inner, module):
                kind = "reduce-scatter" if called.startswith(_SCATTERING) else collective.kind
                yield _attribute(each, r"channel_id=(\d+)"), collective._replace(kind=kind)
    kind = instruction.opcode.removesuffix("-start")
    if kind in CROSSINGS:
        size = sum(sum(num_bytes(computation.instructions[operand].type)) for operand in instruction.operands)
        group = group_size(instruction.attributes)
        yield instruction.name, Collective(kind, group, size * group if kind == "all-gather" else size)


def group_size(attributes: str) -> int:
    """How many devices a collective is among, from its `replica_groups` in any of the ways these are written."""
    if match := re.search(r"replica_groups=mesh\[(?P<mesh>[^\]]*)\].*? \{(?P<axes>[^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match["mesh"]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match["axes"]))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return match[1].count(",") + 1
    return 1


def _attribute(instruction: Instruction, pattern: str) -> str:
    match = re.search(pattern, instruction.attributes)
    return match[1] if match else instruction.name
