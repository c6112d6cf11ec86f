"""Reading the text of a compiled program: computations, their instructions, and the bytes of their arrays."""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

SIZES = {"pred": 1, "bf16": 2, "token": 0, "opaque": 0}
"""Bytes of an element whose type's name doesn't say its bits."""

_ARRAY = re.compile(r"\b(?P<dtype>[a-z]\w*)\[(?P<dims>[\d,<=]*)\](?:\{(?P<order>[\d,]*)(?::(?P<layout>[^}]*))?\})?")
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)")
_NAME = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """One operation; `type` is as written, with the layout, `attributes` is what stands behind the operands."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    argument: str
    attributes: str

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations that it runs, by the names of the attributes that name them."""
        found = (re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%[\w.\-]+)", self.attributes) for attribute in attributes)
        return [name for match in found if match for name in _NAME.findall(match[1])]


class Computation(NamedTuple):
    """Instructions by name, in the order in which they run; `root` names the one whose value is returned."""

    instructions: dict[str, Instruction]
    root: str

    def parameter(self, index: int) -> str:
        """The name of what stands for an operand."""
        return self._parameters[index]

    @property
    def _parameters(self) -> dict[int, str]:
        found = (each for each in self.instructions.values() if each.opcode == "parameter")
        return {int(each.argument): each.name for each in found}

    def users(self, name: str) -> list[Instruction]:
        """What takes a value as an operand."""
        return [each for each in self.instructions.values() if name in each.operands]


class Module(NamedTuple):
    """All computations of a program by name."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """What `compiled.as_text()` of a scheduled program says."""
    computations: dict[str, Computation] = {}
    entry, current, root = "", None, ""
    for line in text.splitlines():
        if match := _COMPUTATION.fullmatch(line):
            current, root = {}, ""
            name = match["name"]
            entry = name if match["entry"] else entry
        elif line == "}" and current is not None:
            computations[name] = Computation(current, root or next(reversed(current)))
            current = None
        elif current is not None and (match := _INSTRUCTION.fullmatch(line)):
            current[match["name"]] = _instruction(match["name"], match["rest"])
            root = match["name"] if match["root"] else root
    if not entry:
        raise ValueError("the text is no compiled program: it has no ENTRY")
    return Module(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    type_end = _closing(text) if text.startswith("(") else text.index(" ")
    opcode, _, rest = text[type_end:].lstrip().partition("(")
    end = _closing(f"({rest}") - 1
    argument = rest[: end - 1]
    return Instruction(name, text[:type_end], opcode, tuple(_NAME.findall(argument)), argument, rest[end:])


def _closing(text: str) -> int:
    """Where the bracket closes that `text` begins with."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    raise ValueError(f"a bracket doesn't close: {text[:80]}")


class Space(NamedTuple):
    """Bytes of arrays by where they lie: in HBM, or in any of the memories on the chip."""

    hbm: int
    chip: int


@functools.lru_cache(maxsize=100_000)
def num_bytes(type_: str) -> Space:
    """Bytes of all arrays of a type as they lie in memory: the tiles of the layout are filled up."""
    sizes = {True: 0, False: 0}
    for size, on_chip in _arrays(type_):
        sizes[on_chip] += size
    return Space(hbm=sizes[False], chip=sizes[True])


def _arrays(type_: str) -> Iterator[tuple[int, bool]]:
    for match in _ARRAY.finditer(type_):
        dims = [int(dim.lstrip("<=")) for dim in match["dims"].split(",") if dim]
        layout = match["layout"] or ""
        order = [int(axis) for axis in (match["order"] or "").split(",") if axis]
        tile = re.search(r"T\(([\d,]+)\)", layout)
        sides = [int(side) for side in tile[1].split(",")] if tile else []
        for axis, side in zip(order, reversed(sides), strict=False):
            dims[axis] = math.ceil(dims[axis] / side) * side
        yield math.prod(dims) * _element_bytes(match["dtype"]), bool(re.search(r"S\([1-9]", layout))


def _element_bytes(dtype: str) -> int:
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return SIZES[dtype] if dtype in SIZES else math.ceil(int(bits[1]) / 8) if bits else 0
