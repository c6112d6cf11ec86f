"""Folders that are either whole or not there, and the JSON in them."""

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2v2_jax.convert.card import FormatError

LFS_POINTER = b"version https://git-lfs"


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, that becomes `target` once all is written; of a failure nothing stays."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_fetched(path: Path) -> None:
    """Raises `FormatError` for a file that git has left as a pointer."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise FormatError(f"{path} is a pointer of Git LFS and not the file itself; fetch it with git lfs pull")


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
