"""Checking a conversion: the network that was written against transformers, with the certificate left beside it."""

import tempfile
from pathlib import Path

from w2v2_jax.convert.huggingface import CARD, CONFIG
from w2v2_jax.convert.parity import Certificate, certify
from w2v2_jax.pretrained import from_pretrained, save_pretrained

CERTIFICATE = "parity.json"


def verify(source: Path, target: Path, to: str, language: str = "") -> tuple[Certificate, Path]:
    """Compares what was converted from `source` into `target` with transformers; also says where that is written.

    On one side stands a network of ours, read from `target` or, if that is for transformers, from `source`; on the
    other what transformers makes of a folder: `target`, `source`, or of other formats one written for the purpose.
    The certificate goes into `target`, or beside it if that is a file, and at the end of a model card.

    Raises:
        ImportError: without torch and transformers.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if to == "huggingface":
            ours, folder = from_pretrained(source, language), target
        else:
            ours = from_pretrained(target)
            folder = source if (source / CONFIG).exists() and not language else _exported(source, language, scratch)
        certificate = certify(ours.card, ours.params, folder)
    return certificate, _written(certificate, target)


def _exported(source: Path, language: str, scratch: str) -> Path:
    folder = Path(scratch) / "huggingface"
    save_pretrained(from_pretrained(source, language), folder, "huggingface")
    return folder


def _written(certificate: Certificate, target: Path) -> Path:
    file = target / CERTIFICATE if target.is_dir() else target.with_suffix(f".{CERTIFICATE}")
    file.write_text(certificate.to_json() + "\n", encoding="utf-8")
    card = target / CARD
    if card.exists():
        card.write_text(card.read_text(encoding="utf-8") + certificate.to_markdown(), encoding="utf-8")
    return file
