"""Checking a conversion: the network that was written against transformers, with the certificate left beside it."""

import importlib.util
import tempfile
from pathlib import Path

from w2v2_jax.convert.folders import read_json
from w2v2_jax.convert.huggingface import CONFIG, MODEL_CARD
from w2v2_jax.convert.parity import Certificate, certify
from w2v2_jax.pretrained import from_pretrained, save_pretrained

CERTIFICATE = "parity.json"


def verify(source: str | Path, target: str | Path, to: str, language: str = "") -> tuple[Certificate, Path]:
    """Compares what was converted from `source` into `target` with transformers; also says where that is written.

    On one side stands a network of ours, read from `target` or, if that is for transformers, from `source`; on the
    other what transformers makes of a folder: `target`, `source`, or of other formats one written for the purpose.
    The certificate goes into `target`, or beside it if that is a file, and at the end of a model card.

    Of a source that is not for transformers, that folder is written from our reading of it: the certificate then says
    that the network computes what transformers does, not that its settings were read rightly.

    Raises:
        ImportError: without torch and transformers.
    """
    target = Path(target)
    with tempfile.TemporaryDirectory() as scratch:
        if to == "huggingface":
            ours, folder = from_pretrained(source, language), target
        else:
            ours = from_pretrained(target)
            folder = _readable(source, language) or _exported(source, language, scratch)
        certificate = certify(ours.card, ours.params, folder)
    return certificate, _written(certificate, target)


def check_can_verify() -> None:
    """Raises `ImportError` without torch and transformers, which a conversion had better know before it begins."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"--verify needs {' and '.join(missing)}: pip install 'w2v2_jax[test]', or leave it out")


def _readable(source: str | Path, language: str) -> Path | None:
    folder = Path(source).expanduser()
    return folder if "model_type" in read_json(folder / CONFIG) and not language else None


def _exported(source: str | Path, language: str, scratch: str) -> Path:
    folder = Path(scratch) / "huggingface"
    save_pretrained(from_pretrained(source, language), folder, "huggingface")
    return folder


def _written(certificate: Certificate, target: Path) -> Path:
    file = target / CERTIFICATE if target.is_dir() else target.with_suffix(f".{CERTIFICATE}")
    file.write_text(certificate.to_json() + "\n", encoding="utf-8")
    card = target / MODEL_CARD
    if card.exists():
        card.write_text(card.read_text(encoding="utf-8") + certificate.to_markdown(), encoding="utf-8")
    return file
