"""safetensors files next to the library that defines them."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from w2v2_jax.convert.card import FormatError
from w2v2_jax.convert.safetensors_files import INDEX, SafeTensor, read_safetensors, write_file, write_safetensors


class Counted:
    """A tensor that says how often it was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, 0

    def read(self):
        self.reads += 1
        return self.array


def arrays(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = {"matrix": (3, 5), "vector": (7,), "scalar": (), "empty": (0, 4), "cube": (2, 3, 4)}
    return {name: np.asarray(9 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def counted(tensors):
    return {name: Counted(array) for name, array in tensors.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64, ml_dtypes.bfloat16])
def test_every_type_is_read_as_the_library_writes_it_and_written_as_it_reads_it(dtype, tmp_path):
    expected = arrays(dtype)
    safetensors.numpy.save_file(expected, tmp_path / "theirs")
    write_file(counted(expected), tmp_path / "ours")
    read = read_safetensors(tmp_path / "theirs")
    written = safetensors.numpy.load_file(tmp_path / "ours")
    assert read.keys() == written.keys() == expected.keys()
    for name, array in expected.items():
        assert (read[name].shape, read[name].dtype) == (array.shape, array.dtype)
        for each in (read[name].read(), written[name]):
            assert each.dtype == array.dtype
            np.testing.assert_array_equal(each, array)


def test_tensors_that_are_not_contiguous_are_written_in_order(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_file({"a": Counted(array.T), "b": Counted(array[:, ::2])}, tmp_path / "file")
    written = safetensors.numpy.load_file(tmp_path / "file")
    np.testing.assert_array_equal(written["a"], array.T)
    np.testing.assert_array_equal(written["b"], array[:, ::2])


def test_opening_a_file_reads_no_tensor(tmp_path, monkeypatch):
    safetensors.numpy.save_file(arrays(), tmp_path / "file")
    read = []
    monkeypatch.setattr(SafeTensor, "read", lambda tensor: read.append(tensor.name))
    tensors = read_safetensors(tmp_path / "file")
    assert not read
    tensors["vector"].read()
    assert read == ["vector"]


def test_a_tensor_is_read_from_the_file_when_it_is_wanted(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(4, np.float32)}, tmp_path / "file")
    tensor = read_safetensors(tmp_path / "file")["a"]
    safetensors.numpy.save_file({"a": np.ones(4, np.float32)}, tmp_path / "file")
    np.testing.assert_array_equal(tensor.read(), np.ones(4))


def test_files_are_begun_before_they_grow_beyond_the_limit(tmp_path):
    """4 tensors of 40 bytes and one of 200 bytes, in files of 100 bytes: the large one is alone."""
    sizes = {"a": 10, "b": 10, "c": 10, "large": 50, "d": 10}
    expected = {name: np.arange(size, dtype=np.float32) for name, size in sizes.items()}
    tensors = counted(expected)
    write_safetensors(tensors, tmp_path, max_shard_bytes=100)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 360
    files = [f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    assert index["weight_map"] == dict(zip(sizes, [files[0], files[0], *files[1:]], strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [*files, INDEX]
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(read_safetensors(tmp_path / file)[name].read(), expected[name])
    assert {tensor.reads for tensor in tensors.values()} == {1}


def test_what_fits_is_one_file_without_an_index(tmp_path):
    write_safetensors(counted(arrays()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", [b"", b"not at all", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_safetensors_file_is_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FormatError, match=r"file is cut short or no safetensors file \(.*\); fetch it again$"):
        read_safetensors(tmp_path / "file")


@pytest.mark.parametrize("kept", [4, 40, -1])
def test_a_file_that_is_cut_short_is_refused(kept, tmp_path):
    safetensors.numpy.save_file(arrays(), tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:kept])
    with pytest.raises(FormatError, match="file is cut short or no safetensors file"):
        read_safetensors(tmp_path / "file")


def test_a_type_that_no_network_has_is_refused(tmp_path):
    safetensors.numpy.save_file({"flags": np.zeros(3, bool)}, tmp_path / "file")
    with pytest.raises(FormatError, match=r"flags is of type BOOL; accepted are F32, F16, BF16, F64, I64$"):
        read_safetensors(tmp_path / "file")
