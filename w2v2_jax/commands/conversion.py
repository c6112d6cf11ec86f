"""Bringing networks here from other libraries and back: `convert`."""

import argparse
from typing import Any

from w2v2_jax.commands.terminal import add_command, add_language, show, table

TARGETS = ("ours", "huggingface", "fairseq", "torchaudio")
"""What `w2v2 convert` writes."""


def add(subparsers: Any) -> None:
    """Adds `convert`."""
    parser = add_command(subparsers, "convert", convert, "bring a network here from another library, or the reverse")
    parser.add_argument(
        "source",
        help="a folder of transformers, a .pt file of fairseq, a state dict of torchaudio, a run or checkpoint of ours",
    )
    parser.add_argument("target", help="what to write: a folder, for fairseq a .pt file")
    parser.add_argument("--to", default="ours", choices=TARGETS, help="the format to write (default: ours)")
    add_language(parser)
    parser.add_argument(
        "--verify", action="store_true", help="run it and transformers on the same audio; needs torch and transformers"
    )


def convert(options: argparse.Namespace) -> int:
    """Writes a network in another format; 1 if it was to be verified and isn't what transformers computes."""
    from rich.console import Console

    from w2v2_jax.conversion import check_can_verify
    from w2v2_jax.pretrained import convert

    if options.verify:
        check_can_verify()
    with Console(stderr=True).status(f"converting {options.source}"):
        card = convert(options.source, options.target, options.to, options.language)
    print(f"{type(card.model).__name__} written to {options.target}")
    return _verify(options) if options.verify else 0


def _verify(options: argparse.Namespace) -> int:
    from rich.console import Console

    from w2v2_jax.conversion import verify

    with Console(stderr=True).status("running it and transformers on the same audio"):
        certificate, file = verify(options.source, options.target, options.to, options.language)
    differences = {case.name: case.largest_difference for case in certificate.cases}
    show(table("largest differences from transformers", differences))
    print(f"Certificate: {file}")
    return 0 if certificate.holds else 1
