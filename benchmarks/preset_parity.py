"""Parity certificates of the presets at full size: our network and that of transformers, with the same random weights.

    python benchmarks/preset_parity.py [PRESET ...]

Needs torch and transformers. Each preset is drawn as before training, written as a folder of transformers and read by
it; both run on the same synthetic audio, on the CPU in float32.
"""

import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax

from w2v2_jax import presets
from w2v2_jax.convert.card import Card
from w2v2_jax.convert.parity import Certificate, certify
from w2v2_jax.masking import TIME_MASK
from w2v2_jax.pretrained import Pretrained, save_pretrained
from w2v2_jax.tasks import Pretraining

PRESETS = ("base", "large", "large_lv60", "conformer_relative", "conformer_rotary", "xls_r_1b")


def main(*names: str) -> None:
    """Prints a row for each preset and case."""
    print("| preset | clips | hidden states | outputs | largest number |\n|---|---|---|---|---|")
    certificates = {name: certificate_of(name) for name in names or PRESETS}
    versions = {f"{name} {version}" for each in certificates.values() for name, version in each.versions.items()}
    print(f"\n{', '.join(sorted(versions))}; {next(iter(certificates.values())).machine}")


def certificate_of(name: str) -> Certificate:
    """Writes, reads and compares one preset."""
    model = getattr(presets, name)()
    params = nn.unbox(jax.jit(Pretraining(model).init)(jax.random.key(0)))
    card = Card(model, normalise=True, time_mask=TIME_MASK)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "huggingface"
        save_pretrained(Pretrained(card, params), folder, "huggingface")
        certificate = certify(card, params, folder)
    for case in certificate.cases:
        outputs = max(case.outputs.values())
        print(f"| {name} | {case.name} | {max(case.hidden):.1e} | {outputs:.1e} | {case.largest:.1f} |", flush=True)
    return certificate


if __name__ == "__main__":
    main(*sys.argv[1:])
