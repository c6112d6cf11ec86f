"""Pickles of PyTorch as plain containers and lazy tensors, without torch and without running what they ask for.

A pickle is a program: it names functions and calls them. Here each name of `ALLOWED` stands for something inert of
this file and any other name is refused, so that unpickling only notes down what was called with what. `Content.build`
then makes plain objects of the notes, and lets nothing else through.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from w2v2_jax.convert.card import FormatError
from w2v2_jax.convert.lazy_tensors import LazyTensor

STORAGES: Mapping[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""PyTorch's names for the types of elements."""


class UnsafeFileError(FormatError):
    """A file that wants to run code; the message names what it calls for."""


class Storage(NamedTuple):
    """A run of `numel` elements elsewhere in the file."""

    dtype: np.dtype
    numel: int


# What follows up to ALLOWED is what a pickle can get hold of. It can call these, and set their state: through
# `__setstate__`, or any attribute where there is none. So classes have a `__setstate__`, which refuses to be called on
# the class itself for want of an argument, and instances have one or, as tuples do, no attributes that can be set.


class _Constant(NamedTuple):
    value: object


class _Part(NamedTuple):
    """Elements of the storage `key`, `length` from `start` on."""

    key: str
    start: int
    length: int


class _Function(NamedTuple):
    """Stands for a function of a pickle; `meaning` gets called once everything is unpickled."""

    meaning: Callable[..., Any]

    def __call__(self, *args):
        return _Call(self.meaning, args)


class _Call:
    __slots__ = ("args", "meaning", "state")

    def __init__(self, meaning: Callable[..., Any], args: tuple):
        self.meaning, self.args, self.state = meaning, args, []

    def __setstate__(self, state):
        self.state = [state]


class _Attributes(dict):
    """Stands for an object without behaviour: its attributes."""

    def __setstate__(self, state):
        self.update(state)


class _OrderedDict(dict):
    def __setstate__(self, state):
        """Drops the versions of modules that `torch.nn.Module.state_dict` attaches."""


def _tensor(storage: LazyTensor, start, shape, strides, requires_grad, backward_hooks) -> LazyTensor:
    return storage.view(start, shape, strides)


def _parameter(tensor: LazyTensor, requires_grad, backward_hooks) -> LazyTensor:
    return tensor


def _device(kind: str, *index: int) -> str:
    return ":".join([kind, *(str(int(each)) for each in index)])


def _encoded(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes; the encoding is always this one."""
    return text.encode("latin1")


def _numpy_dtype(code: str, align, copy, state: tuple) -> np.dtype:
    if not re.fullmatch(r"[biufcSU]\d+", code):
        raise FormatError(f"it holds an array of numpy's type {code}; save it without, or as numbers")
    return np.dtype(code).newbyteorder(state[1])


def _numpy_scalar(dtype: np.dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype)[0]


def _numpy_array(subtype, initial_shape, initial_code, state: tuple) -> np.ndarray:
    _, shape, dtype, is_fortran, data = state
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


ALLOWED: Mapping[str, object] = {
    **{f"torch.{name}": _Constant(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{dtype.name}": _Constant(dtype) for dtype in STORAGES.values()},
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch.Size": _Function(tuple),
    "torch.device": _Function(_device),
    "collections.OrderedDict": _OrderedDict,
    "argparse.Namespace": _Attributes,
    "fairseq.data.dictionary.Dictionary": _Attributes,
    "builtins.set": _Function(set),
    "__builtin__.set": _Function(set),
    "_codecs.encode": _Function(_encoded),
    "__builtin__.bytes": _Function(lambda: b""),
    "numpy.dtype": _Function(_numpy_dtype),
    "numpy.ndarray": _Constant("numpy.ndarray"),
    "numpy.core.multiarray.scalar": _Function(_numpy_scalar),
    "numpy._core.multiarray.scalar": _Function(_numpy_scalar),
    "numpy.core.multiarray._reconstruct": _Function(_numpy_array),
    "numpy._core.multiarray._reconstruct": _Function(_numpy_array),
}
"""All that a pickle may name, and what stands for it while the pickle is read."""

_REGISTRY = frozenset({"EXT1", "EXT2", "EXT4"})
"""Operations that name something by a number, past `find_class`."""


class Content(NamedTuple):
    """A pickle as it was noted down, and the storages it refers to by key."""

    notes: object
    storages: Mapping[str, Storage]

    def build(self, regions: Mapping[str, LazyTensor]) -> Any:
        """The pickled object of plain containers, numpy's arrays and lazy tensors; `regions` are the storages."""
        return _Builder(regions)(self.notes)


def load(file: io.BufferedIOBase) -> Content:
    """The pickle that begins here; `file` stands behind it afterwards.

    Raises `UnsafeFileError`, or whatever damage leads to.
    """
    unpickler = _Unpickler(io.BytesIO(_checked(file)), encoding="utf-8")
    return Content(unpickler.load(), unpickler.storages)


def _checked(file: io.BufferedIOBase) -> bytes:
    """The bytes of one pickle, none of whose operations works round the unpickler."""
    start = file.tell()
    for operation, argument, position in pickletools.genops(file):
        if operation.name in _REGISTRY:
            raise _unsafe(f"copyreg extension {argument}")
        if operation.name.endswith("PUT") and int(argument) > position:
            raise ValueError("a pickle numbers more objects than it has")  # each number takes memory
    length = file.tell() - start
    file.seek(start)
    return file.read(length)


def _unsafe(name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"it wants to run code: its pickle calls for {ascii(name)[:100]}; accepted are tensors in plain containers, "
        "such as the state dict that torch.load(..., weights_only=True) gives, saved as safetensors"
    )


class _Unpickler(pickle.Unpickler):
    """Notes down the calls of a pickle and the storages it refers to."""

    def __init__(self, file: io.BufferedIOBase, encoding: str):
        super().__init__(file, encoding=encoding)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        full_name = f"{module}.{name}"
        if full_name not in ALLOWED:
            raise _unsafe(full_name)
        return ALLOWED[full_name]

    def persistent_load(self, reference: object) -> _Part:
        match reference:
            case ("storage", _Constant(np.dtype() as dtype), str(key), _, int(numel), *view):
                storage = Storage(dtype, numel)
            case _:
                raise ValueError("a pickle refers to something that is no storage")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} is of several types or sizes")
        _, start, length = view[0] if any(view) else (key, 0, numel)
        return _Part(key, start, length)


class _Builder:
    """Makes plain objects of the notes of a pickle, each once however many refer to it."""

    def __init__(self, regions: Mapping[str, LazyTensor]):
        self._regions = regions
        self._built: dict[int, Any] = {}

    def __call__(self, note: object) -> Any:
        if id(note) not in self._built:
            self._built[id(note)] = self._build(note)
        return self._built[id(note)]

    def _build(self, note: object) -> Any:
        match note:
            case _Part(key, start, length):
                return self._regions[key].view(start, (length,), (1,))
            case _Constant(value):
                return value
            case _Call():
                return note.meaning(*map(self, note.args), *map(self, note.state))
            case dict():
                return {self(key): self(value) for key, value in note.items()}
            case list() | set() | frozenset():
                return type(note)(map(self, note))
            case tuple() if type(note) is tuple:
                return tuple(map(self, note))
            case None | bool() | int() | float() | str() | bytes():
                return note
        raise FormatError(
            f"it holds a value that is no tensor, no number and no container ({type(note).__name__}); save it without"
        )
