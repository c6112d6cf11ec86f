"""An experiment as plain JSON and back, so that a checkpoint tells by itself what it is a checkpoint of.

Dataclasses (Linen modules among them) and NamedTuples become {"is": "module.Class", "with": {field: value}}, functions
and classes {"is": "module.name"}. Only such types are ever called when a description is read; nothing is unpickled.
"""

import dataclasses
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn

PLAIN = (bool, int, float, str, type(None))
_NOT_SETTINGS = {"parent", "name"}


def describe(obj: Any) -> Any:
    """What JSON can hold of `obj`.

    Raises:
        ValueError: for what no module has under its name, such as a lambda, and for other types, such as a dict.
    """
    if isinstance(obj, PLAIN):
        return obj
    if isinstance(obj, Path):
        return {"path": str(obj)}
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        fields = [f.name for f in dataclasses.fields(obj) if f.init and f.name not in _module_fields(obj)]
        return {"is": _name(type(obj)), "with": {name: describe(getattr(obj, name)) for name in fields}}
    if hasattr(obj, "_asdict"):
        return {"is": _name(type(obj)), "with": {name: describe(value) for name, value in obj._asdict().items()}}
    if isinstance(obj, tuple | list):
        return [describe(item) for item in obj]
    return {"is": _name(obj)}


def build(description: Any) -> Any:
    """The object that `describe` described; lists become tuples.

    Raises:
        ValueError: for a name that can't be imported or a setting that its class doesn't have.
    """
    if isinstance(description, PLAIN):
        return description
    if isinstance(description, list):
        return tuple(build(item) for item in description)
    if "path" in description:
        return Path(description["path"])
    obj = _find(description["is"])
    if "with" not in description:
        return obj
    if not (dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")) or not isinstance(obj, type):
        raise ValueError(f"{description['is']} is no dataclass or NamedTuple; a description may build nothing else")
    try:
        return obj(**{name: build(value) for name, value in description["with"].items()})
    except TypeError as error:
        raise ValueError(f"{description['is']} has changed since this was saved: {error}") from error


def changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Each setting in which two descriptions differ, as `path: what it was -> what it is`."""
    if _is_settings(old) and _is_settings(new) and old["is"] == new["is"] and old["with"].keys() == new["with"].keys():
        for name in old["with"]:
            yield from changes(old["with"][name], new["with"][name], f"{path}.{name}".lstrip("."))
    elif old != new:
        yield f"{path or 'experiment'}: {_shown(old)} -> {_shown(new)}"


def _is_settings(description: Any) -> bool:
    return isinstance(description, dict) and "with" in description


def _shown(description: Any) -> str:
    return description["is"] if isinstance(description, dict) and "is" in description else json.dumps(description)


def _name(obj: Any) -> str:
    name = f"{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', '')}"
    try:
        found = _find(name)
    except ValueError:
        found = None
    if found is not obj:
        raise ValueError(f"{obj!r} has no name that a checkpoint could find it by; define it at the top of a module")
    return name


def _find(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"can't find {name}, which the checkpoint was made with; is its file on the path?") from error


def _module_fields(obj: Any) -> set[str]:
    return _NOT_SETTINGS if isinstance(obj, nn.Module) else set()
