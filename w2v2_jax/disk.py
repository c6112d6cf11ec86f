"""What is told when a disk has no room for what a run writes."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """A disk, or what may be used of it, is full; the message names it."""


@contextlib.contextmanager
def naming_full_disk(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turns the error of a full disk within into one that says where there is no room for `what`.

    Raises:
        DiskFullError: naming the disk that `folder` is on and how much of it is free.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        raise DiskFullError(
            f"the disk mounted at {_mount(Path(folder))} is full ({megabytes(shutil.disk_usage(folder).free)} free): "
            f"{what} could not be written in {folder}; make room and start again, nothing saved before is lost"
        ) from error


def _is_full(error: BaseException | None) -> bool:
    """TensorStore has its own errors, which only quote what the system said."""
    if error is None:
        return False
    said = any(os.strerror(number) in str(error) for number in _FULL)
    return said or getattr(error, "errno", None) in _FULL or _is_full(error.__cause__ or error.__context__)


def _mount(folder: Path) -> Path:
    return next(place for place in (folder.resolve(), *folder.resolve().parents) if place.is_mount())


def megabytes(num_bytes: int) -> str:
    """An amount of bytes for people to read."""
    return f"{num_bytes / 1e6:,.2f} MB"
