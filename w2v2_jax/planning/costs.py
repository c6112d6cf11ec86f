"""What a compiled program costs on a chip: static estimates, from the text of the program."""

import functools
import re
from typing import NamedTuple

from w2v2_jax.planning.chips import Chip
from w2v2_jax.planning.collectives import CROSSINGS, Collective, collectives_of
from w2v2_jax.planning.hlo import Computation, Instruction, Module, num_bytes
from w2v2_jax.planning.traffic import hbm_bytes

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_PRODUCTS = {"convolution", "dot", "custom-call"}
_CALLS = ("calls", "to_apply", "body", "branch_computations", "true_computation", "false_computation")
_ALLOCATION = '"AllocateBuffer"'
_KERNEL = '"tpu_custom_call"'


class Cost(NamedTuple):
    """What a program takes on each chip.

    `seconds` on the chip, of which `compute` and `memory`, that overlap, would alone take so long, and then
    `communication` by `collectives`, each as often as it runs. Loops of unknown length (`unknown_loops`) were counted
    as one turn, of `unknown_kernels` only the memory.
    """

    seconds: float = 0.0
    compute: float = 0.0
    memory: float = 0.0
    communication: float = 0.0
    collectives: tuple[Collective, ...] = ()
    unknown_loops: int = 0
    unknown_kernels: int = 0

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """Both one after the other, the other one so many times."""
        seconds = (mine + theirs * times for mine, theirs in zip(self[:4], other[:4], strict=True))
        return Cost(
            *seconds,
            self.collectives + other.collectives * times,
            self.unknown_loops + other.unknown_loops,
            self.unknown_kernels + other.unknown_kernels,
        )


def program_cost(module: Module, chip: Chip) -> Cost:
    """The cost of running a whole program once.

    An operation takes the longer of its `estimated_cycles` (the compiler's static estimate) and its HBM traffic; one
    follows the other. Copies that run beside them are hidden as far as the HBM bandwidth lasts. Loops count as often
    as they turn, and of branches the one with most matrix products (a kept layer, not a dropped one). Collectives take
    their bytes over all links of the chip, and nothing hides them.
    """
    return _Costs(module, chip).of(module.entry)


def trip_count(loop: Instruction, module: Module) -> int | None:
    """How often a `while` turns, where the compiler says so or its counter, from 0, is compared with a constant."""
    if match := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(match[1])
    [called] = loop.called("condition")
    condition = module.computations[called]
    root = condition.instructions[condition.root]
    limits = [each for each in map(condition.instructions.get, root.operands) if each and each.opcode == "constant"]
    if root.opcode != "compare" or "direction=LT" not in root.attributes or len(limits) != 1:
        return None
    return int(limits[0].argument)


class _Costs:
    def __init__(self, module: Module, chip: Chip):
        self._module, self._chip = module, chip
        self.of = functools.cache(self._of)

    def _of(self, name: str) -> Cost:
        computation = self._module.computations[name]
        own = self._communication(computation)
        inner = Cost()
        for instruction in computation.instructions.values():
            match instruction.opcode:
                case "while":
                    inner = self._loop(instruction, inner)
                case "conditional":
                    branches = instruction.called("branch_computations", "true_computation", "false_computation")
                    inner = inner.plus(self.of(max(branches, key=self._num_products)))
                case "call":
                    inner = inner.plus(self.of(*instruction.called("to_apply")))
                case _:
                    own = own.plus(self._operation(instruction, computation))
        # Where the copies beside the operations move more than fits into the time of these, the memory sets the pace.
        return own._replace(seconds=max(own.seconds, own.memory)).plus(inner)

    def _num_products(self, name: str) -> int:
        instructions = self._module.computations[name].instructions.values()
        inside = (self._num_products(each) for instruction in instructions for each in instruction.called(*_CALLS))
        return sum(inside) + sum(instruction.opcode in _PRODUCTS for instruction in instructions)

    def _loop(self, instruction: Instruction, before: Cost) -> Cost:
        body, condition = (self.of(*instruction.called(part)) for part in ("body", "condition"))
        trips = trip_count(instruction, self._module)
        return before.plus(body.plus(condition), trips or 1).plus(Cost(unknown_loops=int(trips is None)))

    def _communication(self, computation: Computation) -> Cost:
        collectives = tuple(collectives_of(computation, self._module))
        seconds = sum(each.sent for each in collectives) / self._chip.ici_bandwidth
        return Cost(communication=seconds, collectives=collectives)

    def _operation(self, instruction: Instruction, computation: Computation) -> Cost:
        opcode, _, part = instruction.opcode.rpartition("-")
        is_collective = instruction.opcode in CROSSINGS or opcode in CROSSINGS
        if instruction.opcode in _FREE or is_collective or part == "start" or _ALLOCATION in instruction.attributes:
            return Cost()
        if part == "done":
            return Cost(memory=max(num_bytes(instruction.type)) / self._chip.hbm_bandwidth)
        compute = self._compute(instruction)
        memory = hbm_bytes(instruction, computation, self._module) / self._chip.hbm_bandwidth
        is_unknown = _KERNEL in instruction.attributes and not compute
        return Cost(max(compute, memory), compute, memory, unknown_kernels=int(is_unknown))

    def _compute(self, instruction: Instruction) -> float:
        if match := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes):
            return int(match[1]) / self._chip.clock
        if match := re.search(r'"cost_estimate":\{"flops":"(\d+)"', instruction.attributes):
            return int(match[1]) / self._chip.flops
        return 0.0
