"""Changing single values deep inside an experiment.

`override(experiment, {"task.model.encoder.context_network.layer_drop": 0.1})`
"""

import ast
import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

# What a Linen module carries beside its settings.
_LINEN_FIELDS = ("parent", "name")
_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, Path)
_DTYPES = ("float32", "bfloat16", "float16")


def override(obj: Any, values: Mapping[str, Any]) -> Any:
    """A copy of `obj` with the value at each dotted path replaced; nothing else changes.

    Paths go through the fields of dataclasses (Linen modules among them) and NamedTuples and, by index, into tuples:
    {"task.model.quantizer.num_groups": 4, "phase_ratio.0": 0.2}. A value must be of the kind it replaces: a number,
    a text, a tuple of what the old one holds, or else any module, dataclass or function. An int may stand for a float,
    a text for a `Path`.

    Raises:
        ValueError: for a path that isn't there, naming the nearest one that is, or a value of another kind or one that
            the class of the setting fails with.
    """
    for path, value in values.items():
        try:
            obj = _replace(obj, path, 0, value)
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"{path!r} can't become {_described(value)}: {error}") from error
    return obj


def _replace(obj: Any, path: str, depth: int, value: Any) -> Any:
    names = path.split(".")
    if depth == len(names):
        return _of_the_same_kind(path, obj, value)
    name, above = names[depth], ".".join(names[:depth])
    settings = _settings(obj)
    if name not in settings:
        raise ValueError(_unknown(path, names[: depth + 1], above, obj, settings))
    return _with(obj, name, _replace(settings[name], path, depth + 1, value))


def _settings(obj: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        hidden = _LINEN_FIELDS if isinstance(obj, nn.Module) else ()
        names = [field.name for field in dataclasses.fields(obj) if field.init and field.name not in hidden]
        return {name: getattr(obj, name) for name in names}
    if hasattr(obj, "_asdict"):
        return obj._asdict()
    if isinstance(obj, tuple):
        return {str(index): item for index, item in enumerate(obj)}
    return {}


def _with(obj: Any, name: str, value: Any) -> Any:
    if hasattr(obj, "_replace"):
        return obj._replace(**{name: value})
    if isinstance(obj, tuple):
        return (*obj[: int(name)], value, *obj[int(name) + 1 :])
    return dataclasses.replace(obj, **{name: value})


def _unknown(path: str, names: list[str], above: str, obj: Any, settings: Mapping[str, Any]) -> str:
    if not settings:
        return f"can't set {path!r}: {above!r} is {_described(obj)}, which has no settings of its own"
    nearest = difflib.get_close_matches(names[-1], settings, n=1, cutoff=0)[0]
    return f"there is no {'.'.join(names)!r}; did you mean {'.'.join([*names[:-1], nearest])!r}?"


def _of_the_same_kind(path: str, old: Any, new: Any) -> Any:
    if isinstance(old, float) and type(new) is int:
        return float(new)
    if isinstance(old, Path) and isinstance(new, str):
        return Path(new)
    if not _fits(old, new):
        raise ValueError(f"{path!r} is {_described(old)}; it can't become {_described(new)}")
    if old in _DTYPES and new not in _DTYPES:
        raise ValueError(f"{path!r} is {old!r}; it can't become {new!r}, but one of {', '.join(_DTYPES)}")
    return new


def _fits(old: Any, new: Any) -> bool:
    if not isinstance(old, _PLAIN):
        return old is None or not isinstance(new, _PLAIN)
    return isinstance(new, type(old)) and _kind(new) is _kind(old) and (type(old) is not tuple or _holds(old, new))


def _holds(old: tuple, new: tuple) -> bool:
    """Whether the items of `new` are of kinds that `old` has; an empty one tells nothing."""
    kinds = {_kind(item) for item in old}
    return not old or all(_kind(item) in kinds or (type(item) is int and float in kinds) for item in new)


def _kind(value: Any) -> type:
    return next((kind for kind in _PLAIN if isinstance(value, kind)), object)


def _described(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})" if isinstance(value, _PLAIN) else f"a {type(value).__name__}"


def parse_assignment(text: str) -> tuple[str, Any]:
    """Path and value of "path=value": the value as Python reads it (4, 0.1, True, (1, 2)), or else as plain text.

    Raises:
        ValueError: where there is no "=", or nothing before it.
    """
    path, equals, value = (part.strip() for part in text.partition("="))
    if not (path and equals):
        example = "task.model.encoder.context_network.layer_drop=0.1"
        raise ValueError(f"{text!r} sets nothing; write path=value, e.g. {example}")
    try:
        return path, ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError):
        return path, value
