"""Looking for the fastest way to run an experiment on a slice, at the same global batch."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import jax

from w2v2_jax.context_network import keep_products
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.planning.chips import Slice
from w2v2_jax.planning.plan import Plan, plan
from w2v2_jax.sharding import MeshShape

MESHES = (MeshShape(), MeshShape(fsdp=4), MeshShape(fsdp=16), MeshShape(tensor=2))
"""The state on each chip, shared by a host's worth of chips or by more, and layers cut in two."""

REMAT = "task.model.encoder.context_network.remat_policy"
"""The setting that says what of a layer is kept for the gradients; where there is none, nothing is tried."""

POLICIES = (
    jax.checkpoint_policies.nothing_saveable,
    keep_products,
    jax.checkpoint_policies.everything_saveable,
)

Planner = Callable[[Experiment, Slice], Plan]


def search(experiment: Experiment, slice_: Slice, planner: Planner = plan) -> Iterator[Plan]:
    """Plans of an experiment with other settings, each as soon as it is there; each takes minutes.

    First the batch goes through the network at once, then in twice as many parts as long as that is better; then the
    meshes are tried, then what is kept for the gradients, each on top of the best before. What can't be cut over the
    chips in some way is left out.

    Raises:
        ValueError: where the batch can't be cut over the chips even as a whole.
    """
    best = planner(override(experiment, {"accumulation_steps": 1}), slice_)
    yield best
    while doubled := _changed(best, "accumulation_steps", 2 * best.experiment.accumulation_steps, planner):
        yield doubled
        if rank(doubled) > rank(best):
            break
        best = doubled
    for path, values in (("mesh", MESHES), (REMAT, POLICIES)):
        before = best
        for value in values:
            if changed := _changed(before, path, value, planner):
                yield changed
                best = min(best, changed, key=rank)


def rank(plan: Plan) -> tuple[float, int]:
    """Faster comes first, and of those that don't fit the one that wants least memory."""
    return plan.step_seconds, plan.memory.peak


def kept_for_gradients(experiment: Experiment) -> str:
    """The name of the policy by which layers keep what they computed, or nothing where there is no such setting."""
    try:
        return attrgetter(f"{REMAT}.__name__")(experiment)
    except AttributeError:
        return ""


def _changed(plan: Plan, path: str, value: Any, planner: Planner) -> Plan | None:
    """The plan with another setting, if it is another and possible."""
    try:
        experiment = override(plan.experiment, {path: value})
        return None if experiment == plan.experiment else planner(experiment, plan.slice)
    except ValueError:
        return None
