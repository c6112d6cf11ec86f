"""The command line `w2v2 <command>`: which commands and options there are, and how they fail."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from w2v2_jax.commands import conversion, corpora, language, preflight, recognition, runs, training
from w2v2_jax.commands.terminal import FAILED, complain

UNREACHABLE = 75
"""As sysexits.h has it for what may well succeed the next time."""
INTERRUPTED = 130


def run() -> NoReturn:
    """`main` as a process; it ends even while threads ask a bucket for records, which they do for a quarter of an hour.

    Whatever has to be closed or saved has been by then.
    """
    status = main()
    if status == UNREACHABLE:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (of this process by default) name; returns its exit status.

    0 is success, 1 a run that is unhealthy (`doctor`), doesn't fit (`plan`) or suffers from being killed (`drill`), or
    a corpus that is unsound (`preflight`), 2 something wrong with what was given, 75 a bucket that doesn't answer: one
    line on standard error says what, and `--debug` where.
    """
    options = make_parser().parse_args(arguments)
    # As for `python -m`: experiments and the classes that checkpoints name are found from where one stands.
    sys.path.insert(0, os.getcwd())
    try:
        return options.command(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if options.debug:
            raise
        from w2v2_jax.data.remote import UnreachableError

        complain(_told(error))
        return UNREACHABLE if isinstance(error, UnreachableError) else FAILED


def _told(error: Exception) -> str:
    """What a person is to know of it; of a file as commands commonly put it."""
    of_file = isinstance(error, OSError) and error.filename is not None and error.strerror
    return f"{error.filename}: {error.strerror}" if of_file else str(error)


def make_parser() -> argparse.ArgumentParser:
    """Every command with its options; what it parses has the function to call as `command`."""
    parser = argparse.ArgumentParser(prog="w2v2", description="wav2vec 2.0 in JAX: pretrain, fine-tune, transcribe.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (training, corpora, preflight, recognition, language, conversion, runs):
        group.add(subparsers)
    return parser


if __name__ == "__main__":
    run()
