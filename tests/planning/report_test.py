import micro
import pytest
import rich.console

from w2v2_jax.planning import report
from w2v2_jax.planning.chips import parse_slice
from w2v2_jax.planning.collectives import Collective
from w2v2_jax.planning.costs import Cost
from w2v2_jax.planning.plan import AUDIO, TEXT, Memory, Plan, TooLarge
from w2v2_jax.sharding import MeshShape

GB = 2**30
COST = Cost(0.3, 0.2, 0.1, 0.1, (Collective("all-reduce", 16, 1_500_000),) * 2)
FITS = Plan(
    micro.pretraining(mesh=MeshShape(fsdp=4)),
    parse_slice("v5e:4x4"),
    32,
    57_600,
    AUDIO,
    2 * 10**12,
    Memory(GB, GB, GB),
    COST,
)
TOO_LARGE = FITS._replace(memory=TooLarge(20 * GB, 15 * GB), cost=Cost())


def shown(table):
    console = rich.console.Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize(
    "words",
    [
        "pretraining on v5e:4x4",
        "data=4 fsdp=4",
        "32 x 3.6 s",
        "0.032 h of audio a step",
        "clips a chip",
        "0.08 h/s",
        "3.00 GiB",
        "2 TFLOP",
        "400.0 ms",
        "2 a step",
        "3.0 MB",
    ],
)
def test_a_plan_tells(words):
    assert words in shown(report.plan_table(FITS))


@pytest.mark.parametrize("words", ["32 x 64 words", "2,048 words of text a step", "sentences a chip", "5,120 words/s"])
def test_a_plan_of_a_language_model_tells(words):
    assert words in shown(report.plan_table(FITS._replace(length=64, content=TEXT)))


def test_all_that_is_estimated_says_so():
    estimates = [line for line in shown(report.plan_table(FITS)).splitlines() if " ms " in line or "days" in line]
    assert len(estimates) == 4
    assert all("estimate" in line for line in estimates)


def test_what_does_not_fit_tells_what_it_wants():
    text = shown(report.plan_table(TOO_LARGE))
    assert "20.00 GiB of HBM wanted, 15.00 GiB there" in text
    assert "estimate" not in text


@pytest.mark.parametrize("part", ["unknown_loops", "unknown_kernels"])
def test_what_could_not_be_counted_is_told(part):
    told = part.replace("_", " ")
    assert told in shown(report.plan_table(FITS._replace(cost=COST._replace(**{part: 1}))))
    assert told not in shown(report.plan_table(FITS))


def test_a_search_shows_the_fastest_first_and_what_does_not_fit_last():
    faster = FITS._replace(cost=COST._replace(seconds=0.1))
    lines = shown(report.search_table([TOO_LARGE, FITS, faster])).splitlines()
    rows = [line for line in lines if "data=4 fsdp=4" in line]
    assert [word in row for word, row in zip(("200.0", "400.0", "doesn't fit"), rows, strict=True)] == [True] * 3
