import importlib.util
import math

import jax
import jax.numpy as jnp
import micro
import pytest

from w2v2_jax import cli
from w2v2_jax.batches import AudioBatch
from w2v2_jax.experiment_files import load_experiment
from w2v2_jax.overrides import override
from w2v2_jax.planning.chips import parse_slice
from w2v2_jax.planning.costs import Cost
from w2v2_jax.planning.plan import AUDIO, TEXT, Memory, Plan, TooLarge, model_flops, parse_mesh, plan
from w2v2_jax.sharding import MeshShape, make_mesh
from w2v2_jax.step import make_program

needs_compiler = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")
SLICE = parse_slice("v5e:2x2")
GB = 2**30


FITS = Memory(3 * GB, 5 * GB, GB), Cost(seconds=0.3, communication=0.1)


def made(memory=FITS[0], cost=FITS[1], **changes):
    """A plan of 8 clips of a second on 4 chips, with a tenth of what these could do in 0.4 s as the model's FLOPs."""
    return Plan(micro.pretraining(**changes), SLICE, 8, 16_000, AUDIO, round(0.04 * 4 * 197e12), memory, cost)


def test_estimates_follow_from_the_time_of_a_step():
    found = made(num_steps=216_000)
    assert found.step_seconds == pytest.approx(0.4)
    assert found.mfu == pytest.approx(0.1)
    assert found.throughput == pytest.approx(8 / 3600 / 0.4)
    assert found.days == pytest.approx(1)


def test_text_is_counted_in_words():
    found = made()._replace(length=100, content=TEXT)
    assert found.amount == 800
    assert found.throughput == pytest.approx(800 / 0.4)


def test_the_peak_is_all_that_is_in_memory():
    assert made().memory.peak == 9 * GB


def test_what_does_not_fit_never_ends():
    found = made(memory=TooLarge(20 * GB, 15 * GB), cost=Cost())
    assert not found.fits
    assert (found.step_seconds, found.mfu) == (math.inf, 0)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("data=16", MeshShape()),
        ("fsdp=4", MeshShape(fsdp=4)),
        ("data=2, fsdp=4, tensor=2", MeshShape(fsdp=4, tensor=2)),
    ],
)
def test_a_mesh_is_written_by_its_axes(text, shape):
    assert parse_mesh(text, num_chips=16) == shape


@pytest.mark.parametrize("text", ["fsdp", "fsdp=x", "rows=4", "fsdp=2,", "fsdp=2,fsdp=2"])
def test_what_is_no_mesh_says_how_one_is_written(text):
    with pytest.raises(ValueError, match="is no mesh; write some of data=64,fsdp=4,tensor=1"):
        parse_mesh(text, num_chips=16)


@pytest.mark.parametrize("text", ["data=8", "fsdp=3", "data=2,fsdp=16", "tensor=0"])
def test_axes_that_do_not_make_up_the_chips_are_an_error(text):
    with pytest.raises(ValueError, match=r"is not 16 chips; give numbers whose product is 16"):
        parse_mesh(text, num_chips=16)


def test_base_takes_what_its_layers_do():
    frames = [49_167, 24_583, 12_291, 6_145, 3_072, 1_536, 768]
    kernels = [10 * 512] + [3 * 512 * 512] * 4 + [2 * 512 * 512] * 2
    convolutions = sum(count * kernel for count, kernel in zip(frames, kernels, strict=True))
    position = 768 * 128 * 48 * 768
    layer = 768 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 768 * 768 * 768
    once = 2 * (convolutions + position + 12 * layer)
    experiment = override(load_experiment("experiments.pretrain.base_960h"), {"task.sub_batch_size": 2})
    batch = AudioBatch(jax.ShapeDtypeStruct((2, 245_840), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32))
    params = make_program(experiment, make_mesh(jax.devices()[:1])).state.params
    # Quantizer, projections and what positions in blocks compute in vain are beside that.
    assert model_flops(experiment, params, batch) == pytest.approx(2 * 3 * once, rel=0.02)


@needs_compiler
def test_a_batch_that_cannot_be_cut_says_what_could_be():
    with pytest.raises(ValueError, match=r"a batch of 8 rows can't be cut over v5e:4x4 .* a multiple of 16"):
        plan(micro.pretraining(), parse_slice("v5e:4x4"))


@needs_compiler
def test_parts_of_a_batch_are_cut_too():
    with pytest.raises(ValueError, match="accumulation_steps=4\\); make the batch size a multiple of 16"):
        plan(micro.pretraining(accumulation_steps=4), SLICE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--topology", "v9"], "'v9' names no TPU slice"),
        (["--topology", "v5e:4x4", "--mesh", "fsdp=3"], "a mesh of fsdp=3 is not 16 chips"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(options, message, capsys):
    assert cli.main(["plan", "experiments.pretrain.base_960h", *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
@needs_compiler
def test_base_is_compiled_for_a_chip_that_is_not_here():
    short = {"train_data.batch_size": 1, "train_data.num_samples": 32_000, "task.sub_batch_size": 1}
    experiment = override(load_experiment("experiments.pretrain.base_960h"), short)
    found = plan(experiment, parse_slice("v5e:1x1"))
    # Parameters and both moments in float32, and next to nothing else.
    assert found.memory.arguments == pytest.approx(3 * 4 * 95_044_608, rel=0.01)
    assert 0 < found.memory.temporaries < 2 * GB
    assert 0 < found.cost.compute <= found.step_seconds < 1
    assert 0 < found.mfu < 1
    assert (found.cost.collectives, found.cost.unknown_loops) == ((), 0)


@pytest.mark.slow
@needs_compiler
def test_chips_that_share_the_work_talk_to_each_other():
    found = plan(micro.pretraining(), SLICE)
    summed = sum(each.num_bytes for each in found.cost.collectives if each.kind == "all-reduce")
    params = make_program(micro.pretraining(), make_mesh(jax.devices()[:1])).state.params
    # All gradients in float32, at least.
    assert summed >= sum(4 * leaf.size for leaf in jax.tree.leaves(params))
