import micro
import pytest

from w2v2_jax.planning.chips import parse_slice
from w2v2_jax.planning.costs import Cost
from w2v2_jax.planning.plan import AUDIO, Memory, Plan, TooLarge
from w2v2_jax.planning.search import POLICIES, kept_for_gradients, rank, search
from w2v2_jax.sharding import MeshShape

SLICE = parse_slice("v5e:4x4")


def planner(seconds, parts_that_fit=1, divisor=1024):
    """Plans at once: what a step takes is a function of the experiment, and it fits if it is cut into enough parts."""

    def plan(experiment, slice_):
        if divisor % (parts := experiment.accumulation_steps):
            raise ValueError("can't be cut")
        memory = Memory(5, 5, 0) if parts >= parts_that_fit else TooLarge(100 // parts, 15)
        return Plan(experiment, slice_, 64, 400, AUDIO, 1, memory, Cost(seconds=seconds(experiment)))

    return plan


def tried(**settings):
    plans = list(search(micro.pretraining(), SLICE, planner(**settings)))
    return plans, min(plans, key=rank).experiment


def test_what_does_not_fit_is_cut_until_it_does_and_once_more():
    plans, best = tried(seconds=lambda experiment: experiment.accumulation_steps, parts_that_fit=4)
    parts = [plan.experiment.accumulation_steps for plan in plans]
    assert parts[:4] == [1, 2, 4, 8]
    assert set(parts[4:]) == {4}
    assert best.accumulation_steps == 4


def test_a_batch_that_cannot_be_cut_further_is_left_as_it_is():
    plans, _ = tried(seconds=lambda experiment: 1 / experiment.accumulation_steps, divisor=2)
    assert {plan.experiment.accumulation_steps for plan in plans} == {1, 2}


def test_the_best_mesh_is_tried_with_every_policy():
    plans, best = tried(
        seconds=lambda experiment: (
            abs(experiment.mesh.fsdp - 4) + (kept_for_gradients(experiment) != "everything_saveable")
        )
    )
    assert best.mesh == MeshShape(fsdp=4)
    assert kept_for_gradients(best) == "everything_saveable"
    assert len({kept_for_gradients(plan.experiment) for plan in plans if plan.experiment.mesh.fsdp == 4}) == len(
        POLICIES
    )


def test_nothing_is_planned_twice():
    plans, _ = tried(seconds=lambda experiment: 1.0)
    described = [(p.experiment.accumulation_steps, p.experiment.mesh, kept_for_gradients(p.experiment)) for p in plans]
    assert len(set(described)) == len(described)


def test_an_experiment_that_cannot_be_cut_at_all_is_an_error():
    def refuse(experiment, slice_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(search(micro.pretraining(), SLICE, refuse))
