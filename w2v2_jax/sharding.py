"""Where arrays live: the only file that knows the axes of the mesh.

Modules name the axes of their parameters; a table of rules maps each name to an axis of the mesh, or to none. How
many devices there are, and how they are used, is decided here and nowhere else.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from w2v2_jax.batches import AudioBatch, LabeledBatch

BATCH_AXIS = "data"
MESH_AXES = (BATCH_AXIS,)

Rules = tuple[tuple[str, str | None], ...]

DATA_PARALLEL: Rules = tuple(
    (name, None)
    for name in (
        "layer", "embed", "head", "head_dim", "mlp", "width", "channel_in", "channel", "feature",
        "group", "entry", "entry_dim", "code_in", "code", "label",
    )
)  # fmt: skip
"""Parameters whole on every device; the batch is cut over all of them."""


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """All `devices` along the batch axis."""
    return jax.make_mesh((len(devices),), MESH_AXES, axis_types=(AxisType.Auto,), devices=list(devices))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(boxed: PyTree, mesh: Mesh, rules: Rules) -> PyTree:
    """A sharding for each parameter, from the names that modules gave to its axes.

    `boxed` is what a task's `init` returns, or its shapes. A name that `rules` doesn't know is an error: nothing is
    replicated by oversight.
    """
    specs = nn.get_partition_spec(boxed)
    known = {name for name, _ in rules}
    for path, spec in jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda x: isinstance(x, PartitionSpec)):
        for name in spec:
            if name is not None and name not in known:
                raise ValueError(f"axis {name!r} of {jax.tree_util.keystr(path)} has no rule; add it to the table")
    return nn.logical_to_mesh_sharding(specs, mesh, rules)


def optimizer_shardings(opt_state: PyTree, params: PyTree, mesh: Mesh) -> PyTree:
    """Moments live where their parameters do, all else is everywhere; `params` are the shardings of those.

    Optimizers keep what they know of a parameter under that parameter's path, frozen ones are absent.
    """
    places = dict(jax.tree_util.tree_leaves_with_path(params))

    def place(path, _):
        ends = (path[start:] for start in range(len(path)))
        return next((places[end] for end in ends if end in places), replicated(mesh))

    return jax.tree_util.tree_map_with_path(place, opt_state)


def put_batch(batch: AudioBatch | LabeledBatch, mesh: Mesh) -> AudioBatch | LabeledBatch:
    """Cuts a batch of this process's rows over its devices; all processes together hold the global batch."""
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    local_devices = len(mesh.local_devices)
    rows = len(batch[0])
    if rows % local_devices:
        raise ValueError(
            f"a batch of {rows} rows can't be cut over {local_devices} devices; make the batch size a multiple of "
            f"{local_devices * jax.process_count()}"
        )
    return type(batch)(*(jax.make_array_from_process_local_data(sharding, np.asarray(x)) for x in batch))


def abstract(shapes: PyTree, shardings: PyTree) -> PyTree:
    """Shapes with the shardings that arrays of them shall have."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
