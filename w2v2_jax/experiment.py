"""What a run is made of: an `Experiment`, and what its parts have to offer."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from w2v2_jax.batches import Batch
from w2v2_jax.metrics import Mean
from w2v2_jax.sharding import DATA_PARALLEL, RULES, MeshShape, Rules

Metrics = dict[str, Mean]


@runtime_checkable
class Task(Protocol):
    """What is learned: a model with its objective.

    All randomness of a row follows from its key, and that of a whole batch from the first row's: so a row gets the
    same on any number of devices, and however many rows go through the network at once.
    """

    @property
    def rows_together(self) -> int | float:
        """Rows that are looked at together: a batch is cut between groups of so many, never within one."""

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Parameters, with the names of their axes."""

    def loss(
        self, params: PyTree, batch: Any, keys: Key[Array, " batch"], step: Int[Array, ""]
    ) -> tuple[Mean, Metrics]:
        """The objective as a sum with its weight, and metrics; `keys` has one for each row."""

    def evaluate(self, params: PyTree, batch: Any, keys: Key[Array, " batch"]) -> Metrics:
        """Metrics of a batch that isn't trained on."""


@runtime_checkable
class Batches(Protocol):
    """Endless batches whose place can be saved and restored."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]:
        """The place behind the last batch given, as JSON: the same on every process."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from that place."""


@runtime_checkable
class Dataset(Protocol):
    """What is learned from; `batches` and `epoch` give the rows of this process."""

    def batches(self, seed: int) -> Batches:
        """Endless batches for training."""

    def epoch(self) -> Iterator[Batch]:
        """Everything once, for evaluation."""

    def shapes(self) -> tuple[Batch, ...]:
        """The global batches to expect, as `jax.ShapeDtypeStruct`s."""

    def summary(self) -> dict[str, Any]:
        """What decides how many batches there are and of which shapes, as JSON: processes compare it at the start."""


class DevSet(NamedTuple):
    """One of several datasets to evaluate on, by its name."""

    name: str
    data: Dataset


@dataclasses.dataclass(frozen=True)
class DevSets:
    """Several datasets to evaluate on: metrics are of all of them together, and of each as `name/metric`."""

    sets: tuple[DevSet, ...]

    def __post_init__(self):
        names = [each.name for each in self.sets]
        if not names or len(set(names)) < len(names) or not all(name and "/" not in name for name in names):
            raise ValueError(f"dev sets are named {names}: give one or more, each a name of its own without '/'")

    def summary(self) -> dict[str, Any]:
        """That of each by its name."""
        return {name: data.summary() for name, data in self.sets}


def sets_of(data: Dataset | DevSets) -> tuple[DevSet, ...]:
    """What there is to evaluate on; a dataset alone is a set without a name."""
    return data.sets if isinstance(data, DevSets) else (DevSet("", data),)


@runtime_checkable
class Optimizer(Protocol):
    """How it is learned, given for how many steps."""

    def transformation(self, num_steps: int) -> optax.GradientTransformation:
        """What turns gradients into updates."""

    def learning_rate(self, step: Int[jax.Array, ""] | int, num_steps: int) -> Float[Array, ""]:
        """The rate of the update that follows `step` updates."""


def from_scratch(params: PyTree) -> PyTree:
    """Where a run starts from unless told otherwise: its random parameters."""
    return params


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a run depends on. A fork imports another one and states the difference with `override`.

    `init_from` makes the first parameters out of random ones. Every `log_every` steps the means of the metrics since
    are written, every `eval_every` steps `valid_data` is evaluated, every `save_every` steps the state is saved (and
    a row written, so that none spans a checkpoint); all three happen at the last step too. The newest
    `keep_checkpoints` are kept, those at multiples of `keep_every` steps, and the `keep_best` with the lowest
    `best_metric` of `valid_data`, if one is named, among those saved at a step that was also evaluated. Of `DevSets`
    it may be that of one set, such as "german/word_error_rate".

    A batch goes through the network in `accumulation_steps` parts, one after the other, which takes less memory and
    changes nothing else. `mesh` says how the devices share the work. A step whose loss or gradient isn't finite
    changes no parameter; after `max_skipped` of them in a row the run ends with an error.
    """

    name: str
    task: Task
    train_data: Dataset
    valid_data: Dataset | DevSets
    optimizer: Optimizer
    num_steps: int
    init_from: Callable[[PyTree], PyTree] = from_scratch
    seed: int = 0
    log_every: int = 100
    eval_every: int = 1000
    save_every: int = 1000
    keep_checkpoints: int = 2
    best_metric: str | None = None
    keep_best: int = 1
    keep_every: int | float = math.inf
    accumulation_steps: int = 1
    max_skipped: int = 10
    mesh: MeshShape = DATA_PARALLEL
    rules: Rules = RULES

    def __post_init__(self):
        positive = ("num_steps", "log_every", "eval_every", "save_every", "keep_checkpoints", "accumulation_steps")
        for name in (*positive, "max_skipped", "keep_best", "keep_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
