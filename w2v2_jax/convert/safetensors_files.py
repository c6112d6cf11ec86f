"""Tensors in safetensors files, one or several with an index, as transformers names them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from w2v2_jax.convert.card import FormatError, StoredTensor
from w2v2_jax.convert.folders import check_fetched

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_BYTES = 10**9

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64, "I64": np.int64}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


class SafeTensor(NamedTuple):
    """A tensor of a safetensors file."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """The whole of it; nothing else of the file."""
        with safetensors.safe_open(self.file, "numpy") as file:
            return file.get_tensor(self.name)


def read_safetensors(path: Path) -> dict[str, SafeTensor]:
    """The tensors of a file by name; only its header is read.

    Raises:
        FormatError: for a file that is cut short or none of safetensors, or a dtype that no network has.
    """
    check_fetched(path)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no dict
            return {name: _tensor(path, name, each) for name, each in slices.items()}
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path} is cut short or no safetensors file ({error}); fetch it again") from error


def _tensor(path: Path, name: str, part) -> SafeTensor:
    dtype = part.get_dtype()
    if dtype not in _DTYPES:
        raise FormatError(f"{path}: {name} is of type {dtype}; accepted are {', '.join(_DTYPES)}")
    return SafeTensor(path, name, tuple(part.get_shape()), np.dtype(_DTYPES[dtype]))


def write_safetensors(
    tensors: Mapping[str, StoredTensor], folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes tensors into a folder, in several files with an index if they take more than `max_shard_bytes`.

    No more than one tensor is in memory at once.
    """
    shards: list[dict[str, StoredTensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        num_bytes = _num_bytes(tensor)
        if shards[-1] and size + num_bytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += num_bytes
    if len(shards) == 1:
        write_file(shards[0], folder / SINGLE)
        return
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for shard, file in zip(shards, files, strict=True):
        write_file(shard, folder / file)
    total = sum(map(_num_bytes, tensors.values()))
    weight_map = {name: file for shard, file in zip(shards, files, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def write_file(tensors: Mapping[str, StoredTensor], path: Path) -> None:
    """Writes tensors into one file, one after the other: the library would want them all in memory, twice."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + _num_bytes(tensor)
        header[name] = {
            "dtype": _CODES[np.dtype(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            np.ascontiguousarray(tensor.read()).tofile(file)


def _num_bytes(tensor: StoredTensor) -> int:
    return np.dtype(tensor.dtype).itemsize * math.prod(tensor.shape)
