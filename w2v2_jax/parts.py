"""Work on a corpus that is kept part by part: what was killed goes on, and processes share what there is to do."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

SIZE = 64
"""Utterances of a part."""


class WorkError(ValueError):
    """A folder with other work than is to be done."""


class Parts:
    """A corpus in parts of `SIZE` utterances of about equal length, with a file in `folder` for what is done of each.

    Of its utterances `ids` and `num_samples` are given, and `setting` says what the work depends on besides them.

    Raises:
        WorkError: for a folder with work on another corpus or by another setting.
    """

    def __init__(
        self,
        folder: Path,
        ids: Shaped[np.ndarray, " utterance"],
        num_samples: Int[np.ndarray, " utterance"],
        setting: str,
    ):
        self._folder = folder
        self._order = np.argsort(num_samples, kind="stable")
        told = json.dumps([*zip(ids, num_samples.tolist(), strict=True)])
        ours = {"setting": setting, "corpus": hashlib.sha256(told.encode()).hexdigest()}
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "setting.json"
        if not file.exists():
            with written(file) as unfinished:
                unfinished.write_text(json.dumps(ours))
        theirs = json.loads(file.read_text())
        if theirs != ours:
            raise WorkError(
                f"{folder} has work of another setting ({theirs['setting']}, not {setting}) or on another corpus; give "
                "an empty folder"
            )

    def __len__(self) -> int:
        return -(-len(self._order) // SIZE)

    def places(self, part: int) -> Int[np.ndarray, " _"]:
        """Where the utterances of a part stand in the corpus."""
        return self._order[part * SIZE : (part + 1) * SIZE]

    def file(self, part: int) -> Path:
        """Where that which is done of a part is."""
        return self._folder / f"part_{part:05}"

    def missing(self, share: tuple[int, int] = (0, 1)) -> list[int]:
        """Parts that aren't done, of every nth from the ith on for a `share` of (i, n)."""
        index, count = share
        return [part for part in range(index, len(self), count) if not self.file(part).exists()]


@contextlib.contextmanager
def written(file: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `file` once it is whole."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
