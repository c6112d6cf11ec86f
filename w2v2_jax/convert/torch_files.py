"""PyTorch's files (`.pt`, `.bin`) without torch: read without running what is in them, and written.

Since version 1.6 `torch.save` writes a zip of uncompressed records, one a pickle and one for each storage, before that
five pickles in a row and the storages behind them.
"""

import contextlib
import io
import itertools
import math
import pickle
import struct
import textwrap
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from w2v2_jax.convert import torch_unpickler
from w2v2_jax.convert.card import FormatError
from w2v2_jax.convert.folders import check_fetched
from w2v2_jax.convert.lazy_tensors import LazyTensor
from w2v2_jax.convert.torch_unpickler import STORAGES, Storage, UnsafeFileError

__all__ = ["LazyTensor", "UnsafeFileError", "read_torch_file", "write_torch_file"]

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
MAGIC = 0x1950A86A20F9469CFC6C
ALIGNMENT = 64
"""Bytes; where `torch.save` lets storages begin."""

_STORAGE_NAMES = {dtype: name for name, dtype in STORAGES.items()}
_LEAVES = frozenset({type(None), bool, int, float, str})
_PROTOCOL = pickle.PROTO + b"\x02"


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


_ORDERED_DICT = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def read_torch_file(path: Path | str) -> Any:
    """What `torch.save` wrote: plain dicts, lists, tuples, numbers and strings, and tensors as `LazyTensor`.

    No tensor is read. Namespaces and the dictionaries of fairseq become dicts of their attributes, parameters are
    tensors, data types are numpy's and devices strings.

    Raises:
        UnsafeFileError: if the file wants to run code. None of it is run.
        FormatError: for a file that is cut short or that `torch.save` hasn't written.
        OSError: for a file that is missing.
    """
    path = Path(path)
    with _named_errors(path):
        if path.is_dir():
            raise FormatError("it is a folder; give the file in it")
        check_fetched(path)
        with path.open("rb") as file:
            start = file.read(len(ZIP))
            file.seek(0)
            if start == ZIP:
                return _read_zip(file, path)
            if start.startswith(PICKLE):
                return _read_legacy(file, path)
        if not start:
            raise FormatError("it is empty; fetch it again")
        raise FormatError(f"it begins with {start!r}, as no file of PyTorch does; give one, or fetch it again")


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors with the name of the file, in one line; a damaged pickle can lead to any."""
    try:
        yield
    except OSError:
        raise
    except FormatError as error:
        raise type(error)(f"{path} can't be read: {textwrap.shorten(str(error), 500)}") from error
    except Exception as error:
        reason = textwrap.shorten(repr(error), 200)
        raise FormatError(f"{path} can't be read: it is cut short or damaged ({reason}); fetch it again") from error


def _read_zip(file: io.BufferedIOBase, path: Path) -> Any:
    """The object in a file of torch 1.6 and later."""
    records = _records(file)
    [prefix] = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
    if prefix + "byteorder" in records and _read(file, records[prefix + "byteorder"]) != b"little":
        raise FormatError("its numbers are big-endian; save it on a little-endian machine")
    content = torch_unpickler.load(io.BytesIO(_read(file, records[prefix + "data.pkl"])))
    regions = {key: _region(path, records, f"{prefix}data/{key}", each) for key, each in content.storages.items()}
    return content.build(regions)


def _records(file: io.BufferedIOBase) -> dict[str, range]:
    """The bytes of the file that each record takes."""
    records = zipfile.ZipFile(file).infolist()
    names = [record.filename for record in records]
    if any(name.endswith("/constants.pkl") for name in names):
        raise FormatError("it is a TorchScript archive, a program; give the checkpoint that it was made of")
    if sum(name.endswith("/data.pkl") for name in names) != 1:
        raise FormatError("it is a zip, but not one of torch.save, which has one data.pkl; give a file of torch.save")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise FormatError("its records are compressed, as torch.save never does; save it again")
    return {record.filename: _place(file, record) for record in records}


def _place(file: io.BufferedIOBase, record: zipfile.ZipInfo) -> range:
    """The bytes of the file that a record takes, behind a header of its own."""
    file.seek(record.header_offset)
    name_length, extra_length = struct.unpack("<26xHH", file.read(30))
    start = record.header_offset + 30 + name_length + extra_length
    if start + record.file_size > file.seek(0, io.SEEK_END):
        raise FormatError(f"it is cut short within {record.filename!r}; fetch it again")
    return range(start, start + record.file_size)


def _read(file: io.BufferedIOBase, place: range) -> bytes:
    file.seek(place.start)
    return file.read(len(place))


def _region(path: Path, records: Mapping[str, range], name: str, storage: Storage) -> LazyTensor:
    """The storage in record `name`."""
    place = records.get(name, range(0))
    if len(place) < storage.numel * storage.dtype.itemsize:
        raise ValueError(f"{name} has {len(place)} bytes for {storage.numel} numbers of {storage.dtype}")
    return LazyTensor(path, place.start, storage.dtype, (storage.numel,), (1,))


def _read_legacy(file: io.BufferedIOBase, path: Path) -> Any:
    """The object in a file of torch before 1.6: magic number, version, system, object, keys of the storages."""
    if torch_unpickler.load(file).notes != MAGIC:
        raise FormatError("it is a pickle, but not one of torch.save; save it with torch.save")
    torch_unpickler.load(file)
    if torch_unpickler.load(file).build({})["little_endian"] is not True:
        raise FormatError("its numbers are big-endian; save it on a little-endian machine")
    content = torch_unpickler.load(file)
    keys = torch_unpickler.load(file).build({})
    return content.build({key: _next_region(file, path, content.storages[key]) for key in keys})


def _next_region(file: io.BufferedIOBase, path: Path, storage: Storage) -> LazyTensor:
    """The storage that begins here, with its length; `file` stands behind it afterwards."""
    header = file.read(8)
    start = file.tell()
    end = start + storage.numel * storage.dtype.itemsize
    if end > file.seek(0, io.SEEK_END):
        raise FormatError(f"it is cut short within a storage of {storage.numel} numbers; fetch it again")
    if header != struct.pack("<q", storage.numel):
        raise ValueError(f"a storage of {storage.numel} numbers announces another length")
    file.seek(end)
    return LazyTensor(path, start, storage.dtype, (storage.numel,), (1,))


def write_torch_file(path: Path | str, content: Any) -> None:
    """Writes a file that `torch.load(path, weights_only=True)` reads.

    `content` may nest dicts, lists, tuples, numbers, strings and None; what has a `shape` and a `dtype` becomes a
    contiguous tensor on the CPU. Arrays are taken as they are; of a `StoredTensor`, `read()` is called when its turn
    comes, so that no two of them are in memory. `path` appears once all is written.

    Raises `ValueError` for anything else in `content`, and for types of numbers that PyTorch's files don't have.
    """
    path = Path(path)
    tensors: list[Any] = []
    pickled = _PROTOCOL + _pickled(content, tensors) + pickle.STOP
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
            _write(archive, file, "data.pkl", pickled)
            _write(archive, file, "byteorder", b"little")
            for number, tensor in enumerate(tensors):
                _write(archive, file, f"data/{number}", _raw(tensor))
            _write(archive, file, "version", b"3\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(
    archive: zipfile.ZipFile, file: io.BufferedIOBase, name: str, data: bytes | UInt8[np.ndarray, " byte"]
) -> None:
    """Adds a record whose data begins at a multiple of `ALIGNMENT`, for which the header is filled up."""
    record = zipfile.ZipInfo(f"archive/{name}")
    padding = -(file.tell() + 30 + len(record.filename) + 4) % ALIGNMENT
    record.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    archive.writestr(record, data)


def _raw(tensor: Any) -> UInt8[np.ndarray, " byte"]:
    """The bytes of a tensor, which may be read for it."""
    array = np.ascontiguousarray(tensor.read() if hasattr(tensor, "read") else tensor)
    if (array.size, array.dtype) != (math.prod(tensor.shape), tensor.dtype):
        raise ValueError(
            f"a tensor announced {tensor.shape} of {tensor.dtype}, but reads as {array.shape} of {array.dtype}"
        )
    return array.reshape(-1).view(np.uint8)


def _pickled(value: Any, tensors: list[Any]) -> bytes:
    """Pickle operations that leave `value` on the stack; its tensors are added to `tensors`."""
    match value:
        case OrderedDict():
            return _ORDERED_DICT + pickle.MARK + _each(itertools.chain(*value.items()), tensors) + pickle.SETITEMS
        case dict():
            return pickle.EMPTY_DICT + pickle.MARK + _each(itertools.chain(*value.items()), tensors) + pickle.SETITEMS
        case list():
            return pickle.EMPTY_LIST + pickle.MARK + _each(value, tensors) + pickle.APPENDS
        case tuple():
            return pickle.MARK + _each(value, tensors) + pickle.TUPLE
    if type(value) in _LEAVES:
        return pickle.dumps(value, protocol=2).removeprefix(_PROTOCOL).removesuffix(pickle.STOP)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _pickled_tensor(value, tensors)
    raise ValueError(
        f"{value!r:.100} of type {type(value).__name__} can't be written; give tensors, numbers or strings"
    )


def _each(values: Iterable, tensors: list[Any]) -> bytes:
    return b"".join(_pickled(value, tensors) for value in values)


def _pickled_tensor(tensor: Any, tensors: list[Any]) -> bytes:
    """Pickle operations that leave a tensor on the stack, whose storage is the next one."""
    if tensor.dtype not in _STORAGE_NAMES:
        raise ValueError(
            f"PyTorch's files have no {tensor.dtype}; convert to one of {', '.join(map(str, _STORAGE_NAMES))}"
        )
    shape = tuple(map(int, tensor.shape))
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    storage_type = _global("torch", _STORAGE_NAMES[tensor.dtype])
    key, location, numel = (_pickled(each, tensors) for each in (str(len(tensors)), "cpu", math.prod(shape)))
    tensors.append(tensor)
    storage = pickle.MARK + _pickled("storage", tensors) + storage_type + key + location + numel + pickle.TUPLE
    layout = _each((0, shape, strides, False), tensors)
    args = pickle.MARK + storage + pickle.BINPERSID + layout + _ORDERED_DICT + pickle.TUPLE
    return _global("torch._utils", "_rebuild_tensor_v2") + args + pickle.REDUCE
