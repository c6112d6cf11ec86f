"""Saving and restoring a run. The only file that knows Orbax.

A checkpoint is a folder `<workdir>/checkpoints/<step>` that holds everything: the state, the position in the data, the
metrics it was saved with and a description from which the model can be rebuilt. Orbax marks it as whole last of all, so
a run killed at any moment leaves the checkpoint before it. Arrays are stored by their path in the state, such as
"params/encoder/kernel": what can be read depends neither on the devices nor on the types of a run.
"""

import difflib
import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

Json = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

_FOLDER = "checkpoints"
_log = logging.getLogger(__name__)


class CheckpointMismatchError(ValueError):
    """A checkpoint holds other arrays than the model that it is read for."""


class Checkpoints:
    """The checkpoints of a run that trains; made, and each method called, by all its processes alike.

    Kept are the newest `keep_last` checkpoints and the one with the lowest `best_metric`, if one is named.
    `description` is stored in each for `read_description`: whatever JSON is needed to build the model again.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        description: Json,
        keep_last: int = 2,
        best_metric: str | None = None,
    ):
        if keep_last < 1:
            raise ValueError(f"keep_last is at least 1; got {keep_last}")
        self._folder = _absolute(workdir) / _FOLDER
        self._description = description
        self._best_metric = best_metric
        best = checkpoint_managers.BestN(
            get_metric_fn=self._goodness, n=1 if best_metric else 0, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(keep_last), best]
            ),
            best_fn=self._goodness if best_metric else None,
            cleanup_tmp_directories=True,
        )
        handlers = {
            # Weights hardly compress; to try takes longer than to write them, and memory of the size of the state.
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "data": ocp.JsonCheckpointHandler(),
            "description": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def _goodness(self, metrics: Mapping[str, float | int]) -> float:
        return -np.nan_to_num(metrics[self._best_metric], nan=np.inf)

    def save(
        self, step: int, state: PyTree, data_state: Json, metrics: Mapping[str, float | int] | None = None
    ) -> None:
        """Begins to save the run after `step` updates; returns once `state` may be donated or overwritten.

        `state` is any pytree of arrays with a field `params`; typed PRNG keys are welcome. `data_state` is this
        process's position in its data. With `metrics` the checkpoint competes for the best. A step no newer than the
        newest checkpoint isn't saved again. An error of the save before is raised here.
        """
        if self._best_metric and metrics is not None and self._best_metric not in metrics:
            raise ValueError(
                f"metrics have no {self._best_metric!r} to judge a checkpoint by; they have {list(metrics)}"
            )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave({name: _storable(leaf) for name, leaf in _named(state).items()}),
            data=ocp.args.JsonSave({"processes": _gathered(data_state)}),
            description=ocp.args.JsonSave(self._description),
        )
        self._manager.save(step, args=items, metrics=metrics)

    def restore(self, abstract_state: PyTree) -> tuple[PyTree, Json, int] | None:
        """State, data position and step of the newest readable checkpoint, or None where there is none yet.

        `abstract_state` gives the structure and, as `jax.ShapeDtypeStruct`s with a sharding (arrays will do), where
        each array is to lie: it may be other devices than those it was saved from. A damaged checkpoint is renamed
        `<step>.unreadable`, with a warning, once an older one has been read.

        Raises:
            CheckpointMismatchError: where the state differs from the saved one, naming the first array that does.
            OSError: where there are checkpoints but none can be read.
        """
        self._manager.wait_until_finished()
        unreadable: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state, data_state = _read(self._folder / str(step), abstract_state)
            except CheckpointMismatchError:
                raise
            except Exception as error:  # Whatever a damaged file makes of Orbax.
                unreadable[step] = error
                continue
            self._set_aside(unreadable)
            return state, data_state, step
        if unreadable:
            raise OSError(
                f"none of the checkpoints {sorted(unreadable)} in {self._folder} can be read; "
                "repair the newest, or move them away to start again"
            ) from unreadable[max(unreadable)]
        return None

    def _set_aside(self, unreadable: Mapping[int, Exception]) -> None:
        for step, error in unreadable.items():
            _log.warning("checkpoint %d in %s is damaged; going on from an older one: %s", step, self._folder, error)
            if jax.process_index() == 0:
                (self._folder / str(step)).rename(self._folder / f"{step}.unreadable")
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager.reload()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()


def is_checkpoint(path: epath.PathLike) -> bool:
    """Whether that is the folder of a checkpoint, or of a run that has them."""
    path = _absolute(path)
    return (path / "state").exists() or (path / _FOLDER).exists()


def read_description(path: epath.PathLike) -> Json:
    """The description stored in a checkpoint, given its folder or, for the newest, that of its run."""
    return _read_json(_newest(path) / "description")


def restore_params(path: epath.PathLike, abstract_params: PyTree) -> PyTree:
    """Parameters from a checkpoint, given its folder or, for the newest, that of its run.

    `abstract_params` may be part of what was saved, {"encoder": ...} for instance: the rest isn't read. As in
    `Checkpoints.restore` it says where each array is to lie.

    Raises:
        CheckpointMismatchError: for a parameter that isn't there or has another shape, naming the first.
    """
    folder = _newest(path)
    wanted = {"params": abstract_params}
    _check_holds(folder, _shapes(wanted), _saved_shapes(folder))
    return _read_arrays(folder, wanted)["params"]


def _newest(path: epath.PathLike) -> epath.Path:
    path = _absolute(path)
    if (path / "state").exists():
        return path
    folder = path / _FOLDER
    steps = ocp.utils.checkpoint_steps(folder) if folder.exists() else []
    if not steps:
        raise ValueError(f"there is no checkpoint in {path}; give the folder of a run or its {_FOLDER}/<step>")
    return folder / str(max(steps))


def _absolute(path: epath.PathLike) -> epath.Path:
    return epath.Path(path).expanduser().absolute()


def _read(folder: epath.Path, abstract_state: PyTree) -> tuple[PyTree, Json]:
    here, there = _shapes(abstract_state), _saved_shapes(folder)
    _check_holds(folder, here, there)
    for name in there.keys() - here.keys():
        raise CheckpointMismatchError(f"{folder} is of another run: it has {name} {there[name]}, which isn't here")
    data_state = _own(_read_json(folder / "data")["processes"], folder)
    return _read_arrays(folder, abstract_state), data_state


def _check_holds(folder: epath.Path, here: Shapes, there: Shapes) -> None:
    for name, shape in here.items():
        if name not in there:
            nearest = difflib.get_close_matches(name, there, n=1, cutoff=0)
            raise CheckpointMismatchError(f"{folder} is of another model: it has no {name} {shape}; nearest: {nearest}")
        if there[name] != shape:
            raise CheckpointMismatchError(
                f"{folder} is of another model: {name} has shape {shape} here and {there[name]} there"
            )


def _saved_shapes(folder: epath.Path) -> Shapes:
    saved = ocp.PyTreeCheckpointHandler().metadata(folder / "state")
    return {name: tuple(array.shape) for name, array in saved.tree.items()}


def _read_arrays(folder: epath.Path, abstract: PyTree) -> PyTree:
    wanted = {name: _stored(leaf) for name, leaf in _named(abstract).items()}
    where = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=where, partial_restore=True)
    arrays = ocp.PyTreeCheckpointHandler().restore(folder / "state", args=args)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _as_used(leaf, arrays[_name(path)]), abstract)


def _read_json(folder: epath.Path) -> Json:
    return ocp.JsonCheckpointHandler().restore(folder, args=ocp.args.JsonRestore())


def _named(tree: PyTree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _shapes(abstract: PyTree) -> Shapes:
    return {name: _stored(leaf).shape for name, leaf in _named(abstract).items()}


# A typed PRNG key is stored as its numbers.


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def _storable(leaf: Any) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)


def _stored(leaf: Any) -> jax.ShapeDtypeStruct:
    stored = jax.eval_shape(_storable, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=sharding)


def _as_used(leaf: Any, stored: jax.Array) -> jax.Array:
    if not _is_key(leaf):
        return stored
    # The kind of an abstract key can only be asked for under a trace.
    kinds: list = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.random.wrap_key_data(stored, impl=kinds[0])


# Each process has its own position in the data; a checkpoint has one file for them all.


def _gathered(data_state: Json) -> list[Json]:
    text = np.frombuffer(json.dumps(data_state).encode(), np.uint8)
    sizes = _all(np.array([text.size]))
    texts = _all(np.pad(text, (0, sizes.max() - text.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes[:, 0], strict=True)]


def _all(numbers: np.ndarray) -> np.ndarray:
    return np.reshape(multihost_utils.process_allgather(numbers), (jax.process_count(), -1))


def _own(data_states: list[Json], folder: epath.Path) -> Json:
    if all(data_state == data_states[0] for data_state in data_states):
        return data_states[0]
    if len(data_states) != jax.process_count():
        raise CheckpointMismatchError(
            f"{folder} has the data positions of {len(data_states)} processes, this run has {jax.process_count()}; "
            "resume with as many, or start a new run from its parameters"
        )
    return data_states[jax.process_index()]
