import json

import pytest
from networks import CARDS, params_of

pytest.importorskip("torch")
pytest.importorskip("transformers")

from w2v2_jax.conversion import verify
from w2v2_jax.pretrained import Pretrained, convert, save_pretrained

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same network in every format."""
    folder = tmp_path_factory.mktemp("sources")
    network = Pretrained(CARDS["base CTC"], params_of(CARDS["base CTC"].model))
    paths = {
        "ours": folder / "ours",
        "huggingface": folder / "hf",
        "fairseq": folder / "fairseq" / "model.pt",
        "torchaudio": folder / "torchaudio",
    }
    for to, path in paths.items():
        save_pretrained(network, path, to)
    return paths


@pytest.mark.parametrize(
    ("before", "after"),
    [("huggingface", "ours"), ("ours", "huggingface"), ("fairseq", "ours"), ("torchaudio", "fairseq")],
)
def test_a_conversion_is_verified_and_its_certificate_stands_with_it(sources, tmp_path, before, after):
    target = tmp_path / ("model.pt" if after == "fairseq" else "model")
    convert(sources[before], target, after)
    certificate, file = verify(sources[before], target, after)
    assert certificate.holds
    assert json.loads(file.read_text())["config_sha256"] == certificate.config_sha256
    assert file == (tmp_path / "model.parity.json" if after == "fairseq" else target / "parity.json")


def test_the_model_card_of_an_export_carries_the_certificate(sources, tmp_path):
    target = tmp_path / "model"
    convert(sources["ours"], target, "huggingface")
    assert "Parity" not in (target / "README.md").read_text()
    certificate, _ = verify(sources["ours"], target, "huggingface")
    assert (target / "README.md").read_text().endswith(certificate.to_markdown())
