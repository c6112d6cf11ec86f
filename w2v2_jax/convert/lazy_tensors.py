"""Tensors that stay in their file until they are read."""

import dataclasses
import math
import operator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: where its elements lie, and none of them in memory.

    The first element begins at byte `offset` of the file; `strides` counts elements, not bytes, and none is negative.
    A dataclass rather than a NamedTuple: to JAX it is a leaf.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """Elements of the file from the first to the last one of the tensor, those in between that are not its own
        included; 0 for an empty tensor."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def view(self, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> "LazyTensor":
        """The tensor of `shape` and `strides` whose first element is element `start` of this contiguous one.

        Raises `ValueError` if an element of it would lie outside.
        """
        start, *_ = numbers = [operator.index(number) for number in (start, *shape, *strides)]
        offset = self.offset + start * self.dtype.itemsize
        tensor = LazyTensor(self.path, offset, self.dtype, tuple(shape), tuple(strides))
        if min(numbers) < 0 or start + tensor.span > math.prod(self.shape):
            raise ValueError(
                f"a tensor of shape {shape} and strides {strides} from element {start} on doesn't fit in "
                f"one of {math.prod(self.shape)} elements"
            )
        return tensor

    def read(self) -> Shaped[np.ndarray, "..."]:
        """The tensor, contiguous; reads the bytes of its span and no others.

        Raises `ValueError` if the file has become shorter, `OSError` if it is gone.
        """
        num_bytes = self.span * self.dtype.itemsize
        data = np.fromfile(self.path, np.uint8, num_bytes, offset=self.offset)
        if len(data) < num_bytes:
            raise ValueError(f"{self.path} ends within a tensor: it was cut short after it was opened; fetch it again")
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        elements = np.lib.stride_tricks.as_strided(data.view(self.dtype), self.shape, strides)
        return np.asarray(elements, order="C")
