"""Bytes that an instruction of a compiled program moves between HBM and the chip."""

import math

from w2v2_jax.planning.hlo import Computation, Instruction, Module, num_bytes

_SLICES = {"dynamic-slice", "slice", "gather"}
_VIEWS = {"bitcast", "reshape"}


def hbm_bytes(instruction: Instruction, computation: Computation, module: Module) -> int:
    """What an instruction reads from HBM and writes there; arrays that lie in memories on the chip are free.

    Of an array that is only sliced the slices are read, and of one that is updated in place (the stacked arrays of a
    scan) the update is written.
    """
    reads = 0
    for index, operand in enumerate(instruction.operands):
        whole = num_bytes(computation.instructions[operand].type).hbm
        reads += min(whole, _read(instruction, index, module))
    return reads + min(num_bytes(instruction.type).hbm, _written(instruction.name, computation, module))


def _read(user: Instruction, index: int, module: Module) -> int | float:
    """Bytes that an instruction needs of an operand, infinite where it needs all."""
    if user.opcode in _SLICES and index == 0:
        return sum(num_bytes(user.type))
    if user.opcode == "dynamic-update-slice" and index == 0:
        return 0
    if user.opcode == "fusion":
        [called] = user.called("calls")
        inner = module.computations[called]
        return _read_by_all(inner.parameter(index), inner, module)
    return math.inf


def _read_by_all(name: str, computation: Computation, module: Module) -> int | float:
    total = 0
    for user in computation.users(name):
        if user.opcode in _VIEWS:
            total += _read_by_all(user.name, computation, module)
        else:
            places = (index for index, operand in enumerate(user.operands) if operand == name)
            total += sum(_read(user, index, module) for index in places)
    return total


def _written(name: str, computation: Computation, module: Module) -> int:
    instruction = computation.instructions[name]
    match instruction.opcode:
        case "dynamic-update-slice":
            return sum(num_bytes(computation.instructions[instruction.operands[1]].type))
        case "fusion":
            [called] = instruction.called("calls")
            inner = module.computations[called]
            return _written(inner.root, inner, module)
        case "tuple":
            return sum(_written(operand, computation, module) for operand in instruction.operands)
        case "bitcast":
            return _written(instruction.operands[0], computation, module)
        case _:
            return sum(num_bytes(instruction.type))
