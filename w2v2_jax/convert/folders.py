"""Folders that are either whole or not there, and the JSON in them."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2v2_jax.convert.card import FormatError


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, that becomes `target` once all is written; one killed before leaves `target.partial`."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(target)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; nothing where there is none.

    Raises:
        FormatError: for a file that is not JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} is a {type(content).__name__}, not a JSON object; fetch it again")
    return content


def write_json(path: Path, content: Any) -> None:
    """JSON for people to read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
