import copyreg
import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from w2v2_jax.convert.torch_files import read_torch_file
from w2v2_jax.convert.torch_unpickler import ALLOWED, UnsafeFileError, load

LAYOUTS = ("zip", "legacy")


def in_place_of_tensors(path, operations, layout):
    """A file of torch.save whose object is `operations` instead."""
    buffer = io.BytesIO()
    if layout == "zip":
        writer = torch.PyTorchFileWriter(str(path))
        writer.write_record("data.pkl", operations, len(operations))
        writer.write_record("version", b"3\n", 2)
        writer.write_end_of_file()
        return
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    head, tail = buffer.getvalue().split(pickle.dumps({}, 2))
    path.write_bytes(head + operations + tail)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def called(module, name, *args):
    """Calls `module.name`, as pickles of protocol 2 do."""
    return b"\x80\x02c" + f"{module}\n{name}\n(".encode() + b"".join(map(text, args)) + b"tR."


def named(module, name, *args):
    """The same for names with dots, from protocol 4 on."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(map(text, args)) + b"tR."


class Touch:
    """Runs a command when it's unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


ATTACKS = {
    "posix.system": lambda command, code: called("posix", "system", command),
    "pickle of an object": lambda command, code: pickle.dumps({"model": [Touch(command)]}),
    "eval": lambda command, code: called("builtins", "eval", code),
    "eval of python 2": lambda command, code: called("__builtin__", "eval", code),
    "exec": lambda command, code: called("builtins", "exec", code),
    "__import__": lambda command, code: called("builtins", "__import__", "os"),
    "getattr": lambda command, code: called("builtins", "getattr", "x", "join"),
    "functools.partial": lambda command, code: called("functools", "partial", "x"),
    "operator.attrgetter": lambda command, code: called("operator", "attrgetter", "__globals__"),
    "numpy's runstring": lambda command, code: called("numpy.testing._private.utils", "runstring", code),
    "torch.load": lambda command, code: called("torch.serialization", "load", "x"),
    "a pickle in a storage": lambda command, code: (
        b"\x80\x03ctorch.storage\n_load_from_bytes\nC"
        + bytes([len(pickle.dumps(Touch(command)))])
        + pickle.dumps(Touch(command))
        + b"\x85R."
    ),
    "a dotted name": lambda command, code: named("torch", "_utils.os.system", command),
    "a dotted name behind an allowed one": lambda command, code: named(
        "collections", "OrderedDict.__init__.__globals__", command
    ),
    "a dotted name behind an allowed function": lambda command, code: named(
        "torch._utils", "_rebuild_tensor_v2.__globals__", command
    ),
    "a new object": lambda command, code: (
        b"\x80\x02csubprocess\nPopen\n" + text("touch") + b"\x85\x81."  # NEWOBJ
    ),
    "INST": lambda command, code: f"(S'{command}'\nios\nsystem\n.".encode(),
    "OBJ": lambda command, code: b"(cos\nsystem\n" + text(command) + b"o.",
    "the state of an object": lambda command, code: (
        b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}" + text("__class__") + text(command) + b"sb."
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_calls_for_code_is_refused_and_nothing_runs(tmp_path, attack, layout):
    marker = tmp_path / "ran"
    operations = ATTACKS[attack](f"touch {marker}", f"open({str(marker)!r}, 'w')")
    in_place_of_tensors(tmp_path / "model.pt", operations, layout)
    with pytest.raises(UnsafeFileError, match=r"model\.pt can't be read: it wants to run code") as error:
        read_torch_file(tmp_path / "model.pt")
    assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("place", range(5))
def test_each_pickle_of_a_legacy_file_is_guarded(tmp_path, place):
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    buffer.seek(0)
    pickles = [pickle.dumps(pickle.load(buffer), 2) for _ in range(5)]
    pickles[place] = pickle.dumps(Touch(f"touch {tmp_path / 'ran'}"), 2)
    (tmp_path / "model.pt").write_bytes(b"".join(pickles))
    with pytest.raises(UnsafeFileError, match=r"posix\.system"):
        read_torch_file(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_the_attacks_of_these_tests_do_run_in_an_open_unpickler(tmp_path):
    pickle.loads(ATTACKS["posix.system"](f"touch {tmp_path / 'ran'}", ""))
    assert (tmp_path / "ran").exists()


@pytest.fixture
def registered():
    """posix.system as extension 240, known to the unpickler's cache."""
    copyreg.add_extension("posix", "system", 240)
    assert pickle.loads(b"\x82\xf0.") is os.system
    yield
    copyreg.remove_extension("posix", "system", 240)
    copyreg.clear_extension_cache()


def test_extensions_are_refused_even_if_they_are_cached(tmp_path, registered):
    operations = b"\x80\x02\x82\xf0" + text(f"touch {tmp_path / 'ran'}") + b"\x85R."
    with pytest.raises(UnsafeFileError, match="extension 240"):
        load(io.BytesIO(operations))
    assert not (tmp_path / "ran").exists()


def test_a_name_with_line_breaks_makes_no_more_than_a_line(tmp_path):
    in_place_of_tensors(tmp_path / "model.pt", named("os", "a\n\x1b[31mb" * 1000), "zip")
    with pytest.raises(UnsafeFileError) as error:
        read_torch_file(tmp_path / "model.pt")
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def global_of(name):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


STATES = {
    "attributes": b"}" + text("meaning") + text("x") + b"s",
    "slots": b"N}" + text("meaning") + text("x") + b"s\x86",
    "the class": b"N}" + text("__class__") + global_of("collections.OrderedDict") + b"s\x86",
    "a hook": b"N}" + text("__setstate__") + global_of("torch.Size") + b"s\x86",
    "defaults": b"N}" + text("__defaults__") + b")s\x86",
    "an instance": global_of("argparse.Namespace") + b")\x81",
}


def attributes_of(thing):
    return dict(vars(thing if isinstance(thing, type) else type(thing)))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_pickle_may_name_cannot_be_changed(name, state):
    before = ALLOWED[name], attributes_of(ALLOWED[name])
    operations = b"\x80\x02" + global_of(name) + STATES[state] + b"b."
    with pytest.raises((AttributeError, TypeError, pickle.UnpicklingError)):
        load(io.BytesIO(operations))
    assert (ALLOWED[name], attributes_of(ALLOWED[name])) == before


def test_tensors_and_storages_cannot_be_changed():
    storage = b"(" + text("storage") + global_of("torch.FloatStorage") + text("0") + text("cpu") + b"K\x01tQ"
    with pytest.raises((AttributeError, pickle.UnpicklingError)):
        load(io.BytesIO(b"\x80\x02" + storage + b"}" + text("key") + text("/etc/passwd") + b"sb."))


@pytest.mark.parametrize(
    "args", [b")", b"N\x85", b"K\x01\x85", b"}}\x86", b"(" + text("posix") + text("system") + b"t"]
)
@pytest.mark.parametrize("name", ALLOWED)
def test_calls_with_odd_arguments_give_plain_values_or_a_clear_error(tmp_path, name, args):
    in_place_of_tensors(tmp_path / "model.pt", b"\x80\x02" + global_of(name) + args + b"R.", "zip")
    try:
        value = read_torch_file(tmp_path / "model.pt")
    except ValueError as error:
        assert str(error).startswith(f"{tmp_path / 'model.pt'} can't be read: ") and str(error).isprintable()
    else:
        assert type(value) in (dict, tuple, set, str, bytes, type(None), int)


@pytest.mark.parametrize(
    "operations",
    {
        "a function": global_of("torch._utils._rebuild_tensor_v2"),
        "a class": global_of("argparse.Namespace"),
        "a bytearray": b"\x96" + struct.pack("<Q", 1) + b"x",
        "a list in itself": b"]q\x00h\x00a",
        "a reference to no storage": text("module") + b"\x85Q",
        "an object array": pickle.dumps(np.array([{}], object), 2)[2:-1],
        "a memo for more objects than there is memory": b"Nr\xff\xff\xff\x7f",
        "text longer than memory": b"\x8d" + struct.pack("<Q", 2**62),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_is_no_plain_value_is_refused(tmp_path, operations):
    in_place_of_tensors(tmp_path / "model.pt", b"\x80\x05" + operations[1] + b".", "zip")
    with pytest.raises(ValueError, match=r"model\.pt can't be read: ") as error:
        read_torch_file(tmp_path / "model.pt")
    assert str(error.value).isprintable()


def of_layout(path, numel, start, size, stride):
    """A file whose storage has four numbers, with a tensor of some layout in a storage of `numel`."""
    torch.save(torch.zeros(4), path)
    operations = torch.PyTorchFileReader(str(path)).get_record("data.pkl")
    stored, layout = b"K\x04tq\x05Q", b"K\x00K\x04\x85q\x06K\x01\x85q\x07"
    assert stored in operations and layout in operations
    number = [b"J" + struct.pack("<i", number) for number in (numel, start, size, stride)]
    operations = operations.replace(stored, number[0] + stored[2:])
    operations = operations.replace(layout, number[1] + number[2] + b"\x85q\x06" + number[3] + b"\x85q\x07")
    writer = torch.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", operations, len(operations))
    writer.write_record("data/0", bytes(16), 16)
    writer.write_end_of_file()


@pytest.mark.parametrize("layout", [(4, 0, 4, 1), (4, 3, 1, 5), (3, 1, 2, 1), (4, 0, 2, 3), (4, 2, 7, 0), (4, 4, 0, 1)])
def test_a_tensor_within_its_storage_is_read(tmp_path, layout):
    of_layout(tmp_path / "model.pt", *layout)
    np.testing.assert_array_equal(read_torch_file(tmp_path / "model.pt").read(), np.zeros(layout[2]))


@pytest.mark.parametrize(
    "layout", [(4, 0, 5, 1), (4, 1, 4, 1), (4, 0, 3, 2), (4, 2, 2, -1), (4, -1, 1, 1), (9, 0, 9, 1), (-4, 0, 0, 1)]
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, layout):
    of_layout(tmp_path / "model.pt", *layout)
    with pytest.raises(ValueError, match=r"model\.pt can't be read: .*fetch"):
        read_torch_file(tmp_path / "model.pt")
