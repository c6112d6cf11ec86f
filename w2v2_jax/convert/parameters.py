"""The name table applied: tensors of others to our parameters and back, each tensor accounted for."""

import dataclasses
import difflib
import functools
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from w2v2_jax import frames
from w2v2_jax.convert.card import FormatError, StoredTensor
from w2v2_jax.convert.names import LEAVES, TRANSPOSED, Names
from w2v2_jax.layers import UNIT_UNIFORM
from w2v2_jax.model import PretrainingModel

Shape = tuple[int, ...]

MERGED = (("head", "head_dim"), ("group", "entry"))
"""Axes of ours that torch has as one."""

SHAPES: Mapping[str, Callable[[Shape], Shape]] = {
    "encoder/context_network/position/magnitude": lambda shape: (1, 1, *shape),
    "encoder/context_network/layer/attention/content_bias": lambda shape: shape,
    "encoder/context_network/layer/attention/position_bias": lambda shape: shape,
    "encoder/context_network/layer/convolution/up/kernel": lambda shape: (1, *shape),
    "encoder/context_network/layer/convolution/down/kernel": lambda shape: (1, *shape),
    "quantizer/codebook": lambda shape: (1, shape[0] * shape[1], shape[2]),
    "tdnn_{i}/kernel": lambda shape: (shape[0] * shape[1], shape[2]),
}
"""What torch has in other dimensions than ours with axes merged; before it is transposed."""

MASK_EMBEDDING = "encoder/mask_embedding"
"""The one parameter that a network does without where it isn't trained with masks: some formats have none."""

CACHE_LINE = 64
INIT_FRAMES = 64
"""More than any head needs."""


class Place(NamedTuple):
    """Where others keep one of our parameters: in one tensor or, `stacked`, in one for each layer.

    `shape` is that of each tensor; where `transposed`, with its axes in the other order.
    """

    names: tuple[str, ...]
    stacked: bool
    shape: Shape
    transposed: bool

    def ours(self, theirs: np.ndarray, shape: Shape) -> np.ndarray:
        """Their tensor as ours of `shape`."""
        return (theirs.T if self.transposed else theirs).reshape(shape)

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        """Our array, of one layer if stacked, as their tensor."""
        if not self.transposed:
            return ours.reshape(self.shape)
        return np.ascontiguousarray(ours.reshape(self.shape[::-1]).T)


@dataclasses.dataclass(frozen=True)
class Slice:
    """A tensor of theirs that is made of a parameter of ours when it is written."""

    place: Place
    parameter: Callable[[], np.ndarray]
    layer: int

    @property
    def shape(self) -> Shape:
        """That of the tensor written."""
        return self.place.shape

    @property
    def dtype(self) -> np.dtype:
        """Float32 but for a counter."""
        counts = self.place.names[self.layer].endswith(LEAVES["count"])
        return np.dtype(np.int64 if counts else np.float32)

    def read(self) -> np.ndarray:
        """The tensor."""
        ours = self.parameter()
        return self.place.theirs(ours[self.layer, ...] if self.place.stacked else ours).astype(self.dtype)


@functools.cache
def abstract_params(model: nn.Module) -> PyTree:
    """Shapes of the parameters of any of our models, with the names of their axes; nothing is allocated."""
    encoder = model.encoder
    num_samples = frames.num_samples(INIT_FRAMES, encoder.feature_encoder.layers)
    waveform, lengths = jnp.zeros((1, num_samples)), jnp.full(1, num_samples)
    arguments = [waveform, lengths, jnp.zeros((1, INIT_FRAMES), bool)]
    if isinstance(model, PretrainingModel):
        noise = jnp.zeros((1, 1, model.quantizer.num_groups, model.quantizer.num_entries))
        arguments += [jnp.zeros((1, 1), jnp.int32), noise, 1.0]
    else:
        arguments += [jnp.zeros((1, encoder.embed_dim), bool)]
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments)["params"])


def places(model: nn.Module, names: Names) -> dict[str, Place]:
    """Where others keep each parameter of a model, by our path; a mask embedding may be nowhere.

    Raises:
        FormatError: for a parameter that the format has no name for.
    """
    boxed = jax.tree_util.tree_leaves_with_path(abstract_params(model), is_leaf=lambda x: isinstance(x, nn.Partitioned))
    return {
        path: _place(path, leaf.names, leaf.value.shape, names)
        for path, leaf in map(_named, boxed)
        if path in names or path != MASK_EMBEDDING
    }


def _named(item: tuple[Any, Any]) -> tuple[str, Any]:
    return jax.tree_util.keystr(item[0], simple=True, separator="/"), item[1]


def _place(path: str, axes: tuple[str | None, ...], shape: Shape, names: Names) -> Place:
    pattern = re.sub(r"_\d+(?=/)", "_{i}", path)
    number = re.findall(r"_(\d+)(?=/)", path)
    template = names.get(pattern) or _of_module(path, pattern, names)
    stacked = axes[0] == "layer"
    num_layers = shape[0] if stacked else 1
    axes, shape = (axes[1:], shape[1:]) if stacked else (axes, shape)
    flat = SHAPES.get(pattern, lambda shape: _merged(axes, shape))(shape)
    transposed = path.rpartition("/")[2] in TRANSPOSED
    return Place(
        tuple(template.format(i="".join(number), layer=layer) for layer in range(num_layers)),
        stacked,
        flat[::-1] if transposed else flat,
        transposed,
    )


def _of_module(path: str, pattern: str, names: Names) -> str:
    module, _, leaf = pattern.rpartition("/")
    if module not in names:
        raise FormatError(f"this format has no place for {path}; convert to one that has, such as huggingface or ours")
    return f"{names[module]}.{LEAVES[leaf]}"


def _merged(axes: tuple[str | None, ...], shape: Shape) -> Shape:
    for pair in MERGED:
        if pair in itertools.pairwise(axes):
            first = axes.index(pair[0])
            shape = (*shape[:first], shape[first] * shape[first + 1], *shape[first + 2 :])
    return shape


def check(
    tensors: Mapping[str, StoredTensor], wanted: Mapping[str, Place], derived: Collection[str], what: str
) -> None:
    """Raises `FormatError` unless the tensors are just those wanted, `derived` ones aside, and of their shapes."""
    shapes = {name: place.shape for place in wanted.values() for name in place.names}
    for name, shape in shapes.items():
        if name not in tensors:
            nearest = difflib.get_close_matches(name, tensors, n=1, cutoff=0)
            raise FormatError(
                f"{what} has no tensor {name} {shape}, which its configuration asks for; nearest: {', '.join(nearest)}"
            )
        if tuple(tensors[name].shape) != shape:
            raise FormatError(
                f"{what}: {name} has shape {tuple(tensors[name].shape)}, its configuration asks for {shape}"
            )
    unknown = sorted(tensors.keys() - shapes.keys() - set(derived))
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise FormatError(
            f"{what} has tensors that its configuration has no place for: {', '.join(unknown[:3])}{more}; "
            "give the configuration that it was saved with"
        )


def read_params(
    tensors: Mapping[str, StoredTensor], wanted: Mapping[str, Place], abstract: PyTree, what: str
) -> PyTree:
    """Our parameters, read one tensor at a time; each lies where the `sharding` of its abstract says.

    `abstract` may be part of a model's parameters, such as {"encoder": ...}. A mask embedding that is nowhere is drawn
    as before any training.

    Raises:
        FormatError: for a parameter that isn't there or has another shape, naming the first.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _read(tensors, wanted, jax.tree_util.keystr(path, simple=True, separator="/"), leaf, what),
        abstract,
    )


def _read(
    tensors: Mapping[str, StoredTensor], wanted: Mapping[str, Place], path: str, leaf: Any, what: str
) -> jax.Array:
    if path == MASK_EMBEDDING and path not in wanted:
        return jax.device_put(UNIT_UNIFORM(jax.random.key(0), leaf.shape), leaf.sharding)
    if path not in wanted:
        nearest = difflib.get_close_matches(path, wanted, n=1, cutoff=0)
        raise FormatError(f"{what} is of another model: it has no {path} {leaf.shape}; nearest: {', '.join(nearest)}")
    place = wanted[path]
    size = math.prod(place.shape) * len(place.names)
    if size != math.prod(leaf.shape) or (place.stacked and len(place.names) != leaf.shape[0]):
        raise FormatError(
            f"{what} is of another model: {path} has shape {leaf.shape} here, there {len(place.names)} x {place.shape}"
        )
    array = _aligned(leaf.shape)
    for layer, name in enumerate(place.names):
        part = array[layer, ...] if place.stacked else array
        part[...] = place.ours(tensors[name].read(), part.shape)
    return jax.device_put(array, leaf.sharding)


def _aligned(shape: Shape) -> np.ndarray:
    """Memory that JAX takes over as it is on a CPU; other it would copy, and a stack of layers is a third of all."""
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(np.float32).reshape(shape)


def written(parameter: Callable[[str], np.ndarray], wanted: Mapping[str, Place]) -> Iterator[tuple[str, Slice]]:
    """Their tensors by name, each made when it is read of what `parameter` gives for our path."""
    for path, place in wanted.items():
        for layer, name in enumerate(place.names):
            yield name, Slice(place, functools.partial(parameter, path), layer)


def in_memory(params: PyTree) -> Callable[[str], np.ndarray]:
    """Each of the parameters by its path."""
    arrays = dict(map(_named, jax.tree_util.tree_leaves_with_path(params)))
    return lambda path: np.asarray(arrays[path])


def one_at_a_time(read: Callable[[PyTree], PyTree], abstract: PyTree) -> Callable[[str], np.ndarray]:
    """Each of the parameters by its path, read when it is wanted; of those before none stays in memory."""
    shapes = dict(map(_named, jax.tree_util.tree_leaves_with_path(abstract)))

    @functools.lru_cache(maxsize=1)
    def parameter(path: str) -> np.ndarray:
        tree = traverse_util.unflatten_dict({path: shapes[path]}, sep="/")
        [array] = jax.tree.leaves(read(tree))
        return np.asarray(array)

    return parameter
