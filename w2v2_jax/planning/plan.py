"""What an experiment would take on a slice of a TPU pod, found out without one.

`plan(experiment, parse_slice("v5e:16x16"))` compiles the very step that training runs, for chips that aren't there.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from w2v2_jax.batches import TokenBatch, example_keys
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.experiment import Batch, Experiment
from w2v2_jax.planning import hlo
from w2v2_jax.planning.chips import Slice
from w2v2_jax.planning.compiler import TooLargeError, compile_for_tpu, devices_of
from w2v2_jax.planning.costs import Cost, program_cost
from w2v2_jax.planning.flops import count_flops
from w2v2_jax.sharding import DATA, FSDP, TENSOR, MeshShape, abstract_batch, make_mesh
from w2v2_jax.step import make_program


class Memory(NamedTuple):
    """Bytes of HBM on each chip: what a step is given, what it makes on the way, the program itself."""

    arguments: int
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """All of it; outputs take the place of the state that they replace."""
        return self.arguments + self.temporaries + self.code


class TooLarge(NamedTuple):
    """It doesn't fit: bytes of HBM that the program wants on each chip, and that there are for it."""

    peak: int
    available: int


class Content(NamedTuple):
    """What is in a batch, in words for people: `place` of `places` are a unit of a row, `size` a `unit` of many."""

    name: str
    rows: str
    place: str
    places: int
    unit: str
    size: int


AUDIO = Content("audio", "clips", "s", SAMPLE_RATE, "h", 3600 * SAMPLE_RATE)
TEXT = Content("text", "sentences", "words", 1, "words", 1)


class Plan(NamedTuple):
    """What an experiment would take on a slice.

    A global batch has `rows` of `length` samples, or words; `model_flops` are those of a step on all chips together.
    All that is in seconds is an estimate.
    """

    experiment: Experiment
    slice: Slice
    rows: int
    length: int
    content: Content
    model_flops: int
    memory: Memory | TooLarge
    cost: Cost

    @property
    def fits(self) -> bool:
        """Whether the step fits into the memory of the chips."""
        return isinstance(self.memory, Memory)

    @property
    def step_seconds(self) -> float:
        """Estimated time of a step, infinite where it doesn't fit."""
        return self.cost.seconds + self.cost.communication if self.fits else math.inf

    @property
    def amount(self) -> float:
        """Units of content in a batch without padding, such as hours of audio."""
        return self.rows * self.length / self.content.size

    @property
    def throughput(self) -> float:
        """Estimated units of content a second."""
        return self.amount / self.step_seconds

    @property
    def mfu(self) -> float:
        """Estimated model FLOPs utilisation, 0 to 1: the model's arithmetic over what the chips could do meanwhile."""
        return self.model_flops / (self.step_seconds * self.slice.num_chips * self.slice.chip.flops)

    @property
    def days(self) -> float:
        """Estimated time of all steps of the experiment."""
        return self.experiment.num_steps * self.step_seconds / 86_400


def plan(experiment: Experiment, slice_: Slice) -> Plan:
    """Compiles the train step of an experiment, on its `mesh`, for a slice; takes minutes.

    Of several shapes of batches the largest is looked at. See `program_cost` for what the estimates assume.

    Raises:
        ValueError: without libtpu, and for a mesh or batch that can't be cut over the chips.
    """
    mesh = make_mesh(devices_of(slice_), experiment.mesh)
    batch = max(experiment.train_data.shapes(), key=lambda shape: shape[0].size)
    rows, length = batch[0].shape
    content = TEXT if isinstance(batch, TokenBatch) else AUDIO
    _check_rows(rows, experiment, slice_)
    program = make_program(experiment, mesh)
    lowered = program.step.lower(program.state, abstract_batch(batch, mesh))
    memory, cost = _compiled(lowered, slice_)
    flops = model_flops(experiment, program.state.params, batch)
    return Plan(experiment, slice_, rows, length, content, flops, memory, cost)


def _compiled(lowered: jax.stages.Lowered, slice_: Slice) -> tuple[Memory | TooLarge, Cost]:
    try:
        compiled = compile_for_tpu(lowered)
    except TooLargeError as error:
        return TooLarge(error.wanted, error.available), Cost()
    used = compiled.memory_analysis()
    # What of the outputs takes no argument's place is metrics.
    temporaries = used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    memory = Memory(used.argument_size_in_bytes, temporaries, used.generated_code_size_in_bytes)
    return memory, program_cost(hlo.parse(compiled.as_text()), slice_.chip)


def model_flops(experiment: Experiment, params: PyTree, batch: Batch) -> int:
    """Operations of a step's matrix products and convolutions, from shapes: three times those of the loss, as the
    gradients of both factors of a product take as much again each."""
    rows = len(batch[0])
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.zeros((), jnp.int32)))
    keys = jax.eval_shape(functools.partial(example_keys, num_examples=rows), key)
    return 3 * count_flops(experiment.task.loss, _shapes(params), batch, keys, step)


def _shapes(arrays: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)


def _check_rows(rows: int, experiment: Experiment, slice_: Slice) -> None:
    parts = slice_.num_chips // experiment.mesh.tensor * experiment.accumulation_steps
    if rows % parts:
        raise ValueError(
            f"a batch of {rows} rows can't be cut over {slice_} in {parts} equal parts (chips / tensor x "
            f"accumulation_steps={experiment.accumulation_steps}); make the batch size a multiple of {parts}"
        )


def parse_mesh(text: str, num_chips: int) -> MeshShape:
    """The mesh that a text such as "data=64,fsdp=4" means; what isn't named is 1, but `data` is what is left.

    Raises:
        ValueError: for what is no such text, and for axes that don't make up the chips.
    """
    parts = [part.partition("=") for part in text.split(",")]
    sizes = {name.strip(): int(size) for name, _, size in parts if size.strip().isdecimal()}
    if len(sizes) != len(parts) or not sizes.keys() <= {DATA, *MeshShape._fields}:
        raise ValueError(f"{text!r} is no mesh; write some of {DATA}=64,{FSDP}=4,{TENSOR}=1")
    shape = MeshShape(**{name: size for name, size in sizes.items() if name != DATA})
    shared = math.prod(shape)
    if shared < 1 or sizes.get(DATA, num_chips // shared) * shared != num_chips:
        raise ValueError(f"a mesh of {text} is not {num_chips} chips; give numbers whose product is {num_chips}")
    return shape
