"""Where arrays live: the only file that knows the axes of the mesh.

Modules name the axes of their parameters and of what they compute; one table of rules maps each name to an axis of the
mesh, or to none. How many devices there are, and how they are used, is decided here and nowhere else.
"""

import contextlib
import contextvars
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped
from jaxtyping import PyTree as Tree

from w2v2_jax.batches import AudioBatch, LabeledBatch, TokenBatch

AnyBatch = TypeVar("AnyBatch", AudioBatch, LabeledBatch, TokenBatch)
MeshAxis = str | tuple[str, ...] | None
Rules = tuple[tuple[str, MeshAxis], ...]

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
BATCH_AXES = (DATA, FSDP)

RULES: Rules = (
    ("batch", BATCH_AXES),
    ("embed", FSDP),
    ("channel", FSDP),
    ("head", TENSOR),
    ("mlp", TENSOR),
    *((name, None) for name in ("layer", "frame", "head_dim", "width", "channel_in", "feature")),
    *((name, None) for name in ("group", "entry", "entry_dim", "code_in", "code", "label")),
)
"""The one table. On a mesh with `fsdp` alone this is ZeRO-3, with `tensor` alone it is Megatron's cut of heads and
feed-forward layers, with neither it is data parallelism. The small quantizer and heads are whole on every device."""


class MeshShape(NamedTuple):
    """How the devices are used: groups of `fsdp` x `tensor` of them hold one copy of the parameters.

    `fsdp` devices share the state and work on different clips, `tensor` devices share the heads and feed-forward units
    of the same clips. There are as many copies as there are such groups.
    """

    fsdp: int = 1
    tensor: int = 1


DATA_PARALLEL = MeshShape()
"""A copy of everything on each device."""


def make_mesh(devices: Sequence[Any], shape: MeshShape = DATA_PARALLEL) -> Mesh:
    """The devices as a mesh of data x fsdp x tensor.

    They are taken process by process, so that each process has consecutive rows of a batch; they may be those of a
    topology that isn't here.

    Raises:
        ValueError: for a shape that doesn't divide the devices, or cuts the same clips over several processes.
    """
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    local = min(Counter(device.process_index for device in devices).values())
    if min(shape) < 1 or len(devices) % (shape.fsdp * shape.tensor):
        raise ValueError(
            f"{len(devices)} devices can't be groups of fsdp={shape.fsdp} x tensor={shape.tensor}; "
            f"give numbers whose product divides {len(devices)}"
        )
    if local % shape.tensor:
        raise ValueError(
            f"tensor={shape.tensor} would spread the rows of one batch over processes with {local} devices each; "
            f"give a divisor of {local}"
        )
    grid = np.array(devices).reshape(-1, shape.fsdp, shape.tensor)
    return Mesh(grid, (DATA, FSDP, TENSOR), axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(boxed: Tree, mesh: Mesh, rules: Rules = RULES) -> Tree:
    """A sharding for each parameter, from the names that modules gave to its axes.

    `boxed` is what a task's `init` returns, or its shapes. Vectors are not cut over `fsdp`: they are small, and
    gathering each of them would take longer than it saves memory.

    Raises:
        ValueError: for a name that `rules` doesn't know (nothing is replicated by oversight), for two axes of a
            parameter on one axis of the mesh, and for an axis whose length the mesh doesn't divide.
    """
    shapes = nn.unbox(boxed)
    names = jax.tree.map(tuple, nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, PartitionSpec))

    def place(path, array, names):
        where = f"{jax.tree_util.keystr(path, simple=True, separator='.')} {names}"
        names = names + (None,) * (array.ndim - len(names))
        axes = [_mesh_axis(name, rules, where) for name in names]
        if len(set(names) - {"layer", None}) == 1:
            axes = [None if axis == FSDP else axis for axis in axes]
        _check(axes, array.shape, mesh, where)
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(place, shapes, names)


def _mesh_axis(name: str | None, rules: Rules, where: str) -> MeshAxis:
    known = dict(rules)
    if name is not None and name not in known:
        raise ValueError(f"axis {name!r} of {where} has no rule; add it to the table")
    return known.get(name)


def _check(axes: Sequence[MeshAxis], shape: tuple[int, ...], mesh: Mesh, where: str) -> None:
    used = [axis for axis in axes if axis is not None]
    if len(used) != len(set(used)):
        raise ValueError(f"two axes of {where} fall on the same axis of the mesh: {axes}; change the rules")
    for axis, length in zip(axes, shape, strict=True):
        if length % (size := _size(mesh, axis)):
            raise ValueError(
                f"{where} has {length} along {axis!r}, which {size} devices can't share equally; "
                f"give {axis} a divisor of {length}"
            )


def optimizer_shardings(opt_state: Tree, params: Tree, mesh: Mesh) -> Tree:
    """Moments live where their parameters do, all else is everywhere; `params` are the shardings of those.

    Optimizers keep what they know of a parameter under that parameter's path, frozen ones are absent.
    """
    places = dict(jax.tree_util.tree_leaves_with_path(params))

    def place(path, _):
        ends = (path[start:] for start in range(len(path)))
        return next((places[end] for end in ends if end in places), replicated(mesh))

    return jax.tree_util.tree_map_with_path(place, opt_state)


def _size(mesh: Mesh, axis: MeshAxis) -> int:
    axes = (axis,) if isinstance(axis, str) else axis or ()
    return math.prod(mesh.shape[name] for name in axes)


# What is computed.

_placing: contextvars.ContextVar[tuple[Mesh, Rules] | None] = contextvars.ContextVar("placing", default=None)


@contextlib.contextmanager
def placing(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Within, `place` puts what is traced on `mesh`."""
    token = _placing.set((mesh, rules))
    try:
        yield
    finally:
        _placing.reset(token)


def place(x: Shaped[Array, "..."], *names: str | None) -> Shaped[Array, "..."]:
    """`x`, its axes laid on the mesh as the rules say of their names; as it is where nothing is placed."""
    if (active := _placing.get()) is None:
        return x
    mesh, rules = active
    axes = [_mesh_axis(name, rules, f"an activation {names}") for name in names]
    for name, axis, length in zip(names, axes, x.shape, strict=False):
        if length % (size := _size(mesh, axis)):
            raise ValueError(
                f"{length} along {name!r} can't be shared equally by {size} devices; give a multiple of {size} "
                "(a batch goes through the network in accumulation_steps parts)"
            )
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def on_each_device(
    function: Callable[..., Any], inputs: tuple[tuple[str, ...], ...], outputs: tuple[Any, ...]
) -> Callable[..., Any]:
    """`function` on each device's part of arrays with axes of these names, for what the compiler can't cut itself."""
    if (active := _placing.get()) is None:
        return function
    mesh, rules = active

    def spec(names):
        return PartitionSpec(*(_mesh_axis(name, rules, f"an activation {names}") for name in names))

    specs = jax.tree.map(spec, (inputs, outputs), is_leaf=lambda x: isinstance(x, tuple) and isinstance(x[0], str))
    return jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)


# Batches.


def put_batch(batch: AnyBatch, mesh: Mesh) -> AnyBatch:
    """Cuts a batch of this process's rows over its devices; all processes together hold the global batch."""
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    parts = len(mesh.local_devices) // mesh.shape[TENSOR]
    if len(batch[0]) % parts:
        raise ValueError(
            f"a batch of {len(batch[0])} rows can't be cut over {parts} devices; make the batch size a "
            f"multiple of {mesh.shape[DATA] * mesh.shape[FSDP]}"
        )
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def abstract_batch(shapes: AnyBatch, mesh: Mesh) -> AnyBatch:
    """The shapes of a global batch, with the sharding that `put_batch` gives to one."""
    return abstract(shapes, jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(BATCH_AXES)), shapes))


def abstract(shapes: Tree, shardings: Tree) -> Tree:
    """Shapes with the shardings that arrays of them shall have."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
