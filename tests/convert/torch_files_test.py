import argparse
import collections
import io
import json
import pickle
import subprocess
import sys
import types
import weakref
import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from w2v2_jax.convert.torch_files import read_torch_file, write_torch_file

LAYOUTS = ("zip", "legacy")
NUMBERS = torch.arange(24.0).reshape(2, 3, 4)
SHARED = torch.arange(10)

TENSORS = {
    "float32": torch.tensor([[0.1, -2.5], [1e30, float("inf")]]),
    "float64": torch.tensor([0.1], dtype=torch.float64),
    "float16": torch.tensor([0.1, 65504.0], dtype=torch.float16),
    "bfloat16": torch.tensor([[0.1], [3e38]], dtype=torch.bfloat16),
    "int64": torch.tensor([2**62, -1]),
    "int32": torch.tensor([2**30, -1], dtype=torch.int32),
    "int16": torch.tensor([2**14, -1], dtype=torch.int16),
    "int8": torch.tensor([-128, 127], dtype=torch.int8),
    "uint8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
    "frozen": torch.nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False),
    "view": NUMBERS[1, 1:],
    "transposed": NUMBERS.transpose(0, 2),
    "strided": NUMBERS[:, ::2, 1::2],
    "shared": SHARED[:4],
    "shared too": SHARED[3:],
    "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
    "zero-dim": torch.tensor(3.5),
    "a number of a view": NUMBERS[1, 2, 3],
    "empty": torch.zeros(0),
    "empty rows": torch.zeros(3, 0, 2, dtype=torch.float16),
}


def as_numpy(tensor):
    tensor = tensor.detach()
    return (
        tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
    )


def save(content, path, layout="zip"):
    torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TENSORS)
def test_each_kind_of_tensor_comes_back_equal(tmp_path, name, layout):
    save(TENSORS, tmp_path / "model.pt", layout)
    lazy = read_torch_file(tmp_path / "model.pt")[name]
    expected = as_numpy(TENSORS[name])
    assert (lazy.shape, lazy.dtype) == (expected.shape, expected.dtype)
    array = lazy.read()
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_dict_is_a_plain_dict_in_its_order(tmp_path, layout):
    module = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2))
    save(module.state_dict(), tmp_path / "model.pt", layout)
    state = read_torch_file(tmp_path / "model.pt")
    assert type(state) is dict and list(state) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(state[name].read(), tensor.numpy())


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_protocol_of_pickle_is_read(tmp_path, layout, protocol):
    content = {"tensor": torch.ones(2), "bytes": b"ab\xff", "none": b"", "set": {1}, "scalar": np.float64(0.5)}
    torch.save(content, tmp_path / "model.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=layout == "zip")
    read = read_torch_file(tmp_path / "model.pt")
    np.testing.assert_array_equal(read.pop("tensor").read(), [1, 1])
    assert read == {"bytes": b"ab\xff", "none": b"", "set": {1}, "scalar": 0.5}


@pytest.fixture
def fairseq(monkeypatch):
    """A module fairseq.data.dictionary while the test runs."""
    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class Dictionary:
        def __init__(self, symbols):
            self.symbols = symbols
            self.indices = {symbol: index for index, symbol in enumerate(symbols)}

    Dictionary.__module__, Dictionary.__qualname__ = "fairseq.data.dictionary", "Dictionary"
    sys.modules["fairseq.data.dictionary"].Dictionary = Dictionary
    return Dictionary


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_of_fairseq_is_read_as_plain_values(tmp_path, monkeypatch, fairseq, layout):
    weight = torch.randn(3, 4)
    checkpoint = {
        "args": argparse.Namespace(arch="wav2vec2", dropout=0.1, layers=[(512, 10, 5)], device=torch.device("cuda", 1)),
        "cfg": {"model": {"_name": "wav2vec2", "mask_prob": 0.65, "final_dim": None}},
        "model": collections.OrderedDict([("w2v_encoder.proj.weight", weight), ("tied", weight)]),
        "task_state": {"target_dictionary": fairseq(["<s>", "<pad>", "</s>", "<unk>", "|", "E"])},
        "optimizer_history": [
            {"num_updates": 400_000, "lr_scheduler_state": {"best": np.float64(2.5)}, "criterion": "C"}
        ],
        "extra_state": {
            "train_iterator": {"epoch": np.int64(7), "shuffle": np.bool_(True), "name": np.str_("é")},
            "random": np.arange(6, dtype=">i4").reshape(2, 3),
            "empty": np.zeros(0),
            "shape": torch.Size([2, 3]),
            "dtype": torch.float16,
        },
    }
    save(checkpoint, tmp_path / "model.pt", layout)
    monkeypatch.undo()
    read = read_torch_file(tmp_path / "model.pt")
    assert read["args"] == {"arch": "wav2vec2", "dropout": 0.1, "layers": [(512, 10, 5)], "device": "cuda:1"}
    assert type(read["args"]) is dict
    assert read["cfg"] == checkpoint["cfg"]
    assert read["task_state"]["target_dictionary"]["symbols"] == ["<s>", "<pad>", "</s>", "<unk>", "|", "E"]
    assert read["task_state"]["target_dictionary"]["indices"]["|"] == 4
    assert read["optimizer_history"] == checkpoint["optimizer_history"]
    extra = read["extra_state"]
    assert extra["train_iterator"] == {"epoch": 7, "shuffle": True, "name": "é"}
    assert isinstance(extra["train_iterator"]["epoch"], np.int64)
    np.testing.assert_array_equal(extra["random"], [[0, 1, 2], [3, 4, 5]])
    assert (extra["empty"].shape, extra["shape"], extra["dtype"]) == ((0,), (2, 3), np.float16)
    assert read["model"]["tied"] is read["model"]["w2v_encoder.proj.weight"]
    np.testing.assert_array_equal(read["model"]["tied"].read(), weight.numpy())


def test_views_of_old_storages_are_read(tmp_path):
    """Torch before 1.0 could save a part of a storage: a key of its own, an offset and a length."""
    save(torch.arange(8.0), tmp_path / "model.pt", "legacy")
    data = (tmp_path / "model.pt").read_bytes()
    assert data.count(b"K\x08Ntq") == 1
    data = data.replace(b"K\x08Ntq", b"K\x08X\x01\x00\x00\x00vK\x02K\x05\x87tq")
    assert data.count(b"K\x00K\x08\x85") == 1
    (tmp_path / "model.pt").write_bytes(data.replace(b"K\x00K\x08\x85", b"K\x01K\x04\x85"))
    np.testing.assert_array_equal(read_torch_file(tmp_path / "model.pt").read(), [3, 4, 5, 6])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opening_reads_no_tensor(tmp_path, layout):
    save({"first": torch.zeros(1000), "second": torch.ones(4)}, tmp_path / "model.pt", layout)
    tensors = read_torch_file(tmp_path / "model.pt")
    with (tmp_path / "model.pt").open("r+b") as file:
        file.seek(tensors["second"].offset)
        file.write(np.arange(4, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(tensors["second"].read(), [0, 1, 2, 3])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_short_is_refused_when_it_is_opened(tmp_path, layout, share):
    save({"a": torch.zeros(100), "b": torch.zeros(500)}, tmp_path / "model.pt", layout)
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(data[: int(share * len(data))])
    assert "fetch it again" in refusal(tmp_path / "model.pt")


def refusal(path):
    with pytest.raises(ValueError) as error:
        read_torch_file(path)
    assert str(error.value).startswith(f"{path} can't be read: ") and str(error.value).isprintable()
    return str(error.value)


def zipped(records, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return buffer.getvalue()


DATA = pickle.dumps({"lr": 0.1}, 2)

NO_FILES_OF_TORCH = {
    "text": (b"<!DOCTYPE html>\n", "begins with b'<!DO'"),
    "empty": (b"", "it is empty"),
    "a plain pickle": (DATA, "not one of torch.save"),
    "a zip": (zipped({"words.txt": b"hello"}), "not one of torch.save"),
    "TorchScript": (zipped({"m/data.pkl": DATA, "m/constants.pkl": DATA, "m/code/a.py": b""}), "TorchScript"),
    "compressed": (zipped({"m/data.pkl": DATA}, zipfile.ZIP_DEFLATED), "compressed"),
    "big-endian": (zipped({"m/data.pkl": DATA, "m/byteorder": b"big"}), "big-endian"),
    "no pickle": (zipped({"m/data.pkl": b"hello"}), "can't be read"),
}


@pytest.mark.parametrize("kind", NO_FILES_OF_TORCH)
def test_what_torch_save_has_not_written_is_refused_in_a_line(tmp_path, kind):
    data, reason = NO_FILES_OF_TORCH[kind]
    (tmp_path / "model.pt").write_bytes(data)
    assert reason in refusal(tmp_path / "model.pt")


def test_a_big_endian_legacy_file_is_refused(tmp_path):
    save({}, tmp_path / "model.pt", "legacy")
    data = (tmp_path / "model.pt").read_bytes()
    assert data.count(b"little_endianq\x02\x88") == 1
    (tmp_path / "model.pt").write_bytes(data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    assert "big-endian" in refusal(tmp_path / "model.pt")


def test_a_legacy_storage_of_another_length_is_refused(tmp_path):
    save(torch.zeros(4), tmp_path / "model.pt", "legacy")
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(data[:-24] + b"\x03" + data[-23:])
    assert "announces another length" in refusal(tmp_path / "model.pt")


def test_a_folder_is_refused_and_a_missing_file_named(tmp_path):
    assert "folder" in refusal(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        read_torch_file(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_torch_is_needed(tmp_path, layout):
    save({"weight": torch.arange(3.0)}, tmp_path / "model.pt", layout)
    code = (
        "import sys, json; sys.modules['torch'] = None\n"
        "from w2v2_jax.convert.torch_files import read_torch_file, write_torch_file\n"
        "content = read_torch_file(sys.argv[1]); write_torch_file(sys.argv[2], content)\n"
        "print(json.dumps(content['weight'].read().tolist()))"
    )
    arguments = [sys.executable, "-c", code, tmp_path / "model.pt", tmp_path / "copy.pt"]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == [0, 1, 2]
    assert torch.equal(torch.load(tmp_path / "copy.pt", weights_only=True)["weight"], torch.arange(3.0))


ARRAYS = {
    "float32": np.array([[0.1, 2], [3, 4]], np.float32),
    "float64": np.array([0.1]),
    "float16": np.array([0.1], np.float16),
    "bfloat16": np.array([[0.1], [3e38]], ml_dtypes.bfloat16),
    "int64": np.array([2**62, -1]),
    "int32": np.array([5, -1], np.int32),
    "int16": np.array([5, -1], np.int16),
    "int8": np.array([5, -1], np.int8),
    "uint8": np.array([255], np.uint8),
    "bool": np.array([True, False]),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "zero-dim": np.array(3.5, np.float32),
    "a scalar": np.float32(3.5),
    "empty": np.zeros((3, 0, 2), np.float32),
    "jax": jnp.arange(5),
}


@pytest.mark.parametrize("how", [{}, {"mmap": True}], ids=["read", "mapped"])
def test_torch_reads_the_arrays_that_we_write(tmp_path, how):
    write_torch_file(tmp_path / "model.bin", ARRAYS)
    read = torch.load(tmp_path / "model.bin", weights_only=True, **how)
    assert type(read) is dict and list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].is_contiguous() and read[name].shape == array.shape, name
        assert as_numpy(read[name]).dtype == array.dtype, name
        np.testing.assert_array_equal(as_numpy(read[name]), array)


PLAIN = {
    "numbers": [0, -1, 255, 256, 65536, 2**31, -(2**40), 2**70, 0.1, float("inf"), True, False, None],
    "texts": ["", "a", "ü" * 300, "</s>"],
    "empty": ({}, [], ()),
    "nested": {"a": [(1, {"b": (2,)})], 3: "key", True: "yes"},
}


def test_torch_reads_the_plain_values_that_we_write(tmp_path):
    write_torch_file(tmp_path / "model.bin", PLAIN)
    assert torch.load(tmp_path / "model.bin", weights_only=True) == PLAIN
    assert read_torch_file(tmp_path / "model.bin") == PLAIN


def test_an_ordered_dict_stays_one_for_torch(tmp_path):
    write_torch_file(tmp_path / "model.bin", collections.OrderedDict(b=1, a=2))
    read = torch.load(tmp_path / "model.bin", weights_only=True)
    assert type(read) is collections.OrderedDict and list(read) == ["b", "a"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_read_can_be_written(tmp_path, layout):
    save(TENSORS, tmp_path / "model.pt", layout)
    write_torch_file(tmp_path / "copy.pt", read_torch_file(tmp_path / "model.pt"))
    copy = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert copy.keys() == TENSORS.keys()
    assert all(torch.equal(copy[name], tensor) for name, tensor in TENSORS.items())


def test_records_lie_aligned_and_uncompressed_and_files_repeat(tmp_path):
    for name in ("one.pt", "two.pt"):
        write_torch_file(tmp_path / name, ARRAYS)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()
    reader = torch.PyTorchFileReader(str(tmp_path / "one.pt"))
    assert {reader.get_record_offset(name) % 64 for name in reader.get_all_records()} == {0}
    assert (reader.get_record("version"), reader.get_record("byteorder")) == (b"3\n", b"little")
    assert zipfile.ZipFile(tmp_path / "one.pt").testzip() is None


class Watched:
    """A tensor that is read only after the one before it has been let go."""

    shape, dtype = (1000,), np.dtype(np.float32)
    last = staticmethod(lambda: None)

    def read(self):
        assert Watched.last() is None
        array = np.zeros(self.shape, self.dtype)
        Watched.last = weakref.ref(array)
        return array


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    write_torch_file(tmp_path / "model.pt", [Watched() for _ in range(5)])
    assert len(torch.load(tmp_path / "model.pt", weights_only=True)) == 5


class Unlike:
    shape, dtype = (3,), np.dtype(np.float32)

    def read(self):
        return np.zeros(4, np.float32)


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"a": object()}, "of type object can't be written"),
        ([{1, 2}], "of type set"),
        (np.zeros(1, np.complex64), "no complex64"),
        (np.array(["a"]), "no <U1"),
        (Unlike(), "reads as"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, content, reason):
    (tmp_path / "model.pt").write_bytes(b"old")
    with pytest.raises(ValueError, match=reason):
        write_torch_file(tmp_path / "model.pt", content)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("model.pt", b"old")]
