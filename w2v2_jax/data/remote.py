"""Corpora in a bucket, whose folder is a URL such as gs://bucket/corpora: the extra `gcs`."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import PurePath

from fsspec.config import conf

_LIBRARIES = {"aiohttp", "fsspec", "gcsfs", "google", "requests"}
"""What talks to buckets, each with errors of its own."""

# Its last word comes as an error of ours; by itself it would show that with a traceback before.
_log = logging.getLogger("gcsfs")
_log.addHandler(logging.NullHandler())
_log.propagate = False
# A process that has seen a folder once would otherwise never see that it has changed.
conf.setdefault("gcs", {})["use_listings_cache"] = False


class UnreachableError(OSError):
    """A bucket that doesn't answer, or not to us; the message names it."""


def is_remote(folder: str | PurePath) -> bool:
    """Whether a folder is in a bucket."""
    return "://" in os.fspath(folder)


@contextlib.contextmanager
def naming_bucket(folder: str | PurePath) -> Iterator[None]:
    """Turns what a bucket's library says once it has given up into an error that names the folder.

    The library tries again by itself, for about half a minute. Nothing is changed for a folder on disk.

    Raises:
        UnreachableError: for a bucket that can't be reached, isn't there or may not be used.
    """
    try:
        yield
    except Exception as error:
        of_a_library = type(error).__module__.partition(".")[0] in _LIBRARIES
        if not is_remote(folder) or isinstance(error, UnreachableError) or not of_a_library:
            raise
        raise UnreachableError(
            f"{os.fspath(folder)} can't be reached: {error}; see to the network, the name and your rights, and run the "
            "same again: what is written stays"
        ) from error
