"""Saving and restoring a run. The only file that knows Orbax.

A checkpoint is a folder `<workdir>/checkpoints/<step>` that holds everything: the state, the position in the data, the
metrics it was saved with and a description from which the model can be rebuilt. It is written in the background, and
Orbax marks it as whole last of all: a run killed at any moment, or left without room on its disk, has the checkpoint
before it. Arrays are stored by their path in the state, such as "params/encoder/kernel": what can be read depends
neither on the devices and processes nor on the types of a run.
"""

import contextlib
import difflib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from w2v2_jax.disk import megabytes, naming_full_disk

Json = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")

_FOLDER = "checkpoints"
_UNFINISHED = ".orbax-checkpoint-tmp"
_log = logging.getLogger(__name__)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Orbax logs, at once and in full, what is raised here a little later."""
    if "orbax" in record.pathname:
        record.exc_info = None
    return True


logging.getLogger("absl").addFilter(_without_traceback)


class CheckpointMismatchError(ValueError):
    """A checkpoint holds other arrays than the model that it is read for."""


class SaveError(OSError):
    """A checkpoint couldn't be written; those before it are as they were."""


class Checkpoints:
    """The checkpoints of a run that trains; made, and each method called, by all its processes alike.

    Kept are the newest `keep_last` checkpoints, the `keep_best` with the lowest `best_metric`, if one is named, and
    for ever those at multiples of `keep_every` steps. `description` is stored in each for `read_description`: whatever
    JSON is needed to build the model again.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        description: Json,
        keep_last: int = 2,
        best_metric: str | None = None,
        keep_best: int = 1,
        keep_every: int | float = math.inf,
    ):
        for name, least in {"keep_last": keep_last, "keep_best": keep_best, "keep_every": keep_every}.items():
            if least < 1:
                raise ValueError(f"{name} is at least 1; got {least}")
        self._folder = _absolute(workdir) / _FOLDER
        self._description = description
        self._best_metric = best_metric
        kept = _Kept(keep_last, keep_best, keep_every, self._metric)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=kept,
            best_fn=self._metric if best_metric else None,
            cleanup_tmp_directories=True,
        )
        handlers = {
            # Weights hardly compress; to try takes longer than to write them, and memory of the size of the state.
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "place": ocp.JsonCheckpointHandler(),
            "description": ocp.JsonCheckpointHandler(),
        }
        if jax.process_index() == 0:
            _drop_unreadable_metrics(self._folder)
        multihost_utils.sync_global_devices("metrics of checkpoints readable")
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        self._saving, self._num_bytes = 0, 0

    def _metric(self, metrics: Mapping[str, float | int]) -> float:
        return float(np.nan_to_num(metrics[self._best_metric], nan=np.inf))

    def save(self, step: int, state: PyTree, place: Json, metrics: Mapping[str, float | int] | None = None) -> None:
        """Begins to save the run after `step` updates; returns once `state` may be donated or overwritten.

        `state` is any pytree of arrays with a field `params`; typed PRNG keys are welcome. `place` is where the run is
        otherwise, its position in the data for instance, which holds for every process and any number of them. With
        `metrics` the checkpoint competes for the best. A step no newer than the newest checkpoint isn't saved again.

        Raises:
            SaveError: where this checkpoint, or the one whose saving began before it, couldn't be written.
            DiskFullError: where that is for want of room.
        """
        if self._best_metric and metrics is not None and self._best_metric not in metrics:
            raise ValueError(
                f"metrics have no {self._best_metric!r} to judge a checkpoint by; they have {list(metrics)}"
            )
        arrays = {name: _storable(leaf) for name, leaf in _named(state).items()}
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(arrays),
            place=ocp.args.JsonSave(place),
            description=ocp.args.JsonSave(self._description),
        )
        self.wait()
        self._saving, self._num_bytes = step, sum(array.nbytes for array in arrays.values())
        with self._naming_what_failed():
            self._manager.save(step, args=items, metrics=metrics if self._best_metric else None)

    def wait(self) -> None:
        """Returns once what is being saved is whole, or raises as `save` does."""
        with self._naming_what_failed():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _naming_what_failed(self) -> Iterator[None]:
        what = f"checkpoint {self._saving}"
        with naming_full_disk(self._folder, f"{what}, of {megabytes(self._num_bytes)},"):
            try:
                yield
            except Exception as error:  # Of Orbax, TensorStore or the system.
                raise SaveError(f"{what} couldn't be saved in {self._folder}: {error!r}") from error

    def restore(self, abstract_state: PyTree) -> tuple[PyTree, Json, int] | None:
        """State, place and step of the newest readable checkpoint, or None where there is none yet.

        `abstract_state` gives the structure and, as `jax.ShapeDtypeStruct`s with a sharding (arrays will do), where
        each array is to lie: it may be other devices than those it was saved from. A damaged checkpoint is renamed
        `<step>.unreadable`, with a warning, once an older one has been read. Processes agree on the checkpoint.

        Raises:
            CheckpointMismatchError: where the state differs from the saved one, naming the first array that does.
            OSError: where there are checkpoints but none can be read.
        """
        self.wait()
        steps = self._manager.all_steps()
        if not steps:
            return None
        found = _newest_readable(self._folder, steps, lambda folder: _together(_read, folder, abstract_state))
        if found.damaged:
            self._set_aside(found.damaged)
        state, place = found.value
        return state, place, found.step

    def _set_aside(self, damaged: Sequence[int]) -> None:
        if jax.process_index() == 0:
            for step in damaged:
                (self._folder / str(step)).rename(self._folder / f"{step}.unreadable")
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager.reload()

    def close(self) -> None:
        """Waits, then lets go of the folder; raises as `save` does."""
        with self._naming_what_failed():
            self._manager.close()


@dataclass(frozen=True)
class _Kept:
    """A preservation policy of Orbax."""

    newest: int
    best: int
    every: int | float
    metric: Callable[[Mapping[str, float | int]], float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        judged = [checkpoint for checkpoint in checkpoints if checkpoint.metrics is not None]
        best = sorted(judged, key=lambda checkpoint: self.metric(checkpoint.metrics))[: self.best]
        kept = {*steps[-self.newest :], *(checkpoint.step for checkpoint in best)}
        return [step in kept or step % self.every == 0 for step in steps]


def is_checkpoint(path: epath.PathLike) -> bool:
    """Whether that is the folder of a checkpoint, or of a run that has them."""
    path = _absolute(path)
    return (path / "state").exists() or (path / _FOLDER).exists()


def read_description(path: epath.PathLike) -> Json:
    """The description stored in a checkpoint, given its folder or, for the newest readable one, that of its run."""
    return _read_from(path, lambda folder: _read_json(folder / "description"))


def read_arrays(path: epath.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by their path in the state, given its folder or, for the newest, that of its run."""
    return _read_from(path, _all_arrays)


def restore_params(path: epath.PathLike, abstract_params: PyTree) -> PyTree:
    """Parameters from a checkpoint, given its folder or, for the newest readable one, that of its run.

    `abstract_params` may be part of what was saved, {"encoder": ...} for instance: the rest isn't read. As in
    `Checkpoints.restore` it says where each array is to lie. Called by all processes alike.

    Raises:
        CheckpointMismatchError: for a parameter that isn't there or has another shape, naming the first.
        OSError: where there are checkpoints but none can be read.
    """
    return _read_from(path, lambda folder: _together(_read_params, folder, abstract_params))


def newest_step(path: epath.PathLike) -> int:
    """The step of the newest checkpoint of a run, 0 where there is none yet."""
    return max(_steps(_absolute(path) / _FOLDER), default=0)


def is_saving(path: epath.PathLike) -> bool:
    """Whether a checkpoint of a run is being written, or was when the run was killed."""
    return any(_UNFINISHED in folder.name for folder in (_absolute(path) / _FOLDER).glob("*"))


def _steps(folder: epath.Path) -> Sequence[int]:
    return ocp.utils.checkpoint_steps(folder) if folder.exists() else []


def _drop_unreadable_metrics(folder: epath.Path) -> None:
    """A checkpoint is worth keeping without the numbers that it is judged by: it is just not among the best."""
    for step in _steps(folder):
        file = folder / str(step) / "metrics" / "metrics"
        try:
            json.loads(file.read_text() if file.exists() else "{}")
        except ValueError as error:
            _log.warning("checkpoint %d in %s will not be judged, its metrics are damaged: %s", step, folder, error)
            file.unlink()


def _read_from(path: epath.PathLike, read: Callable[[epath.Path], T]) -> T:
    path = _absolute(path)
    if (path / "state").exists():
        return read(path)
    steps = _steps(path / _FOLDER)
    if not steps:
        raise ValueError(f"there is no checkpoint in {path}; give the folder of a run or its {_FOLDER}/<step>")
    return _newest_readable(path / _FOLDER, steps, read).value


class _Found(NamedTuple):
    value: Any
    step: int
    damaged: Sequence[int]


def _newest_readable(folder: epath.Path, steps: Sequence[int], read: Callable[[epath.Path], Any]) -> _Found:
    """What `read` makes of the newest checkpoint that it can read, with a warning of each that it can't."""
    errors: dict[int, Exception] = {}
    for step in sorted(steps, reverse=True):
        try:
            value = read(folder / str(step))
        except CheckpointMismatchError:
            raise
        except Exception as error:  # Whatever a damaged file makes of Orbax.
            errors[step] = error
            continue
        for damaged, error in errors.items():
            _log.warning("checkpoint %d in %s is damaged; using %d, before it: %s", damaged, folder, step, error)
        return _Found(value, step, list(errors))
    raise OSError(
        f"none of the checkpoints {sorted(errors)} in {folder} can be read; "
        "repair the newest, or move them away to start again"
    ) from errors[max(errors)]


def _together(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns, if it doesn't fail on any process: they go on from the same checkpoint."""
    try:
        value, error = function(*arguments), None
    except Exception as raised:
        error = raised
    failed = np.ravel(multihost_utils.process_allgather(np.array(error is not None)))
    if failed.any():
        raise error or OSError(f"process {failed.argmax()} can't read it")
    return value


def _absolute(path: epath.PathLike) -> epath.Path:
    return epath.Path(path).expanduser().absolute()


def _read(folder: epath.Path, abstract_state: PyTree) -> tuple[PyTree, Json]:
    here, there = _shapes(abstract_state), _saved_shapes(folder)
    _check_holds(folder, here, there)
    for name in there.keys() - here.keys():
        raise CheckpointMismatchError(f"{folder} is of another run: it has {name} {there[name]}, which isn't here")
    return _read_arrays(folder, abstract_state), _read_json(folder / "place")


def _read_params(folder: epath.Path, abstract_params: PyTree) -> PyTree:
    wanted = {"params": abstract_params}
    _check_holds(folder, _shapes(wanted), _saved_shapes(folder))
    return _read_arrays(folder, wanted)["params"]


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


def _all_arrays(folder: epath.Path) -> dict[str, np.ndarray]:
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in _saved_shapes(folder)}
    return ocp.PyTreeCheckpointHandler().restore(folder / "state", args=ocp.args.PyTreeRestore(restore_args=as_numpy))


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
