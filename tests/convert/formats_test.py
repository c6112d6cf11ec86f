"""Which format a file or folder is of, and what is said of all the others."""

import argparse
import json
import logging
import os

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer  # noqa: E402
from w2v2_jax.convert.card import Card, FormatError  # noqa: E402
from w2v2_jax.convert.formats import FORMATS, open_weights  # noqa: E402
from w2v2_jax.convert.torch_unpickler import UnsafeFileError  # noqa: E402
from w2v2_jax.data.text import LETTERS  # noqa: E402
from w2v2_jax.feature_encoder import FeatureEncoder  # noqa: E402
from w2v2_jax.masking import MaskSpans  # noqa: E402
from w2v2_jax.model import CTCModel, Wav2Vec2  # noqa: E402
from w2v2_jax.pretrained import Pretrained, from_pretrained, placed, save_pretrained  # noqa: E402

ENCODER = Wav2Vec2(
    FeatureEncoder(((8, 10, 5), (8, 3, 2))), ContextNetwork(2, PostNormLayer(4, 48), position=PositionalConv(16, 4)), 32
)
CARD = Card(CTCModel(ENCODER, 32), False, LETTERS, time_mask=MaskSpans(0.5, 10, 2))
ACCEPTED = "accepted are folders of transformers (config.json and weights), .pt files of fairseq, state dicts of "


def params_of(model):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), placed(model))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same network in each format."""
    folder = tmp_path_factory.mktemp("written")
    network = Pretrained(CARD, params_of(CARD.model))
    paths = {name: folder / f"{name}.pt" for name in FORMATS}
    for name, path in paths.items():
        save_pretrained(network, path, name)
    return network, paths


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_told_by_its_content(written, name):
    network, paths = written
    again = from_pretrained(paths[name])
    assert again.card.model.num_labels == 32
    expected, found = (
        each.params | {"encoder": each.params["encoder"] | {"mask_embedding": 0}} for each in (network, again)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_only_torchaudio_has_no_place_for_the_mask_embedding(written, tmp_path, caplog, name):
    with caplog.at_level(logging.WARNING):
        save_pretrained(written[0], tmp_path / "model.pt", name)
    assert ("mask embedding" in caplog.text) == (name == "torchaudio")


def test_nothing_of_the_parameters_is_read_before_they_are_asked_for(written, tmp_path):
    content = torch.load(written[1]["fairseq"], weights_only=True)
    torch.save(content, tmp_path / "model.pt")
    weights = open_weights(tmp_path / "model.pt")
    (tmp_path / "model.pt").unlink()
    assert weights.card.model.num_labels == 32
    with pytest.raises(OSError):
        weights.read(placed(weights.card.model))


def refusal(path, error=FormatError):
    with pytest.raises(error) as raised:
        from_pretrained(path)
    message = str(raised.value)
    assert str(path) in message and "\n" not in message
    return message


def fairseq_of(name):
    return {"model": {"mask_emb": torch.zeros(3)}, "args": None, "cfg": {"model": {"_name": name}, "task": {}}}


@pytest.mark.parametrize("name", ["hubert", "hubert_ctc", "data2vec_audio", "wav2vec", "wav2vec_seq2seq", None])
def test_other_networks_of_fairseq_are_named(tmp_path, name):
    torch.save(fairseq_of(name), tmp_path / "model.pt")
    message = refusal(tmp_path / "model.pt")
    assert f"a checkpoint of {name!r}" in message and "accepted are fairseq's wav2vec2 and wav2vec_ctc" in message


@pytest.mark.parametrize("name", ["hubert_ctc", "wav2vec_seq2seq", "data2vec_audio"])
def test_other_fine_tuned_networks_of_fairseq_are_named(tmp_path, name):
    state = {"w2v_encoder.w2v_model.mask_emb": torch.zeros(3)}
    torch.save(
        {"model": state, "args": argparse.Namespace(arch=name, w2v_args=argparse.Namespace())}, tmp_path / "a.pt"
    )
    assert f"a checkpoint of {name!r}" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("cfg", [{"task": {}}, {"model": None}, {"model": {}}])
def test_settings_that_name_no_network_are_refused(tmp_path, cfg):
    torch.save({"model": {}, "cfg": cfg}, tmp_path / "model.pt")
    assert "a checkpoint of None" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content, what",
    [
        ({"layer.weight": torch.zeros(2), "layer.bias": torch.zeros(2)}, "a dict with 'layer.weight', 'layer.bias'"),
        ({f"layer{i}": torch.zeros(1) for i in range(9)}, "'layer2' and 9 entries in all"),
        ({0: "a", 1: "b"}, "a dict with '0', '1'"),
        ({"model": {}, "optimizer": {}}, "a dict with 'model', 'optimizer'"),
        ({}, "an empty dict"),
        ([torch.zeros(1)], "a list"),
        (torch.zeros(3), "a LazyTensor"),
        ("words", "a str"),
    ],
)
def test_a_file_of_something_else_is_refused_with_what_it_holds(tmp_path, content, what):
    torch.save(content, tmp_path / "model.pt")
    message = refusal(tmp_path / "model.pt")
    assert what in message and ACCEPTED in message


def test_a_text_is_refused_with_how_it_begins(tmp_path):
    (tmp_path / "model.pt").write_text("<!DOCTYPE html>\nNot found")
    assert "b'<!DO'" in refusal(tmp_path / "model.pt")


def test_weights_without_their_config_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "config.json" in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "config, reason",
    [
        (None, "has no config.json"),
        ({}, "has no config.json"),
        ({"hidden_size": 768}, "has a config.json that names no model_type"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, config, reason):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    message = refusal(tmp_path)
    assert reason in message and ACCEPTED in message


def test_a_config_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("model_type: wav2vec2")
    assert "config.json is not JSON" in refusal(tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere\.pt"):
        from_pretrained(tmp_path / "nowhere.pt")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_and_none_of_it_is_run(tmp_path, layout):
    content = fairseq_of("wav2vec2") | {"extra_state": Malicious(tmp_path / "touched")}
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=layout == "zip")
    assert "wants to run code" in refusal(tmp_path / "model.pt", UnsafeFileError)
    assert not (tmp_path / "touched").exists()


def test_settings_that_would_run_code_are_refused_and_none_of_it_is_run(written, tmp_path):
    content = torch.load(written[1]["fairseq"], weights_only=True)
    content["cfg"]["model"]["w2v_args"]["model"]["conv_feature_layers"] = (
        f"__import__('os').system('touch {tmp_path}/x')"
    )
    torch.save(content, tmp_path / "model.pt")
    assert "conv_feature_layers" in refusal(tmp_path / "model.pt")
    assert not (tmp_path / "x").exists()


KEY = "w2v_encoder.w2v_model.encoder.layers.1.self_attn.k_proj.bias"


def damaged(written, path, change):
    content = torch.load(written[1]["fairseq"], weights_only=True)
    change(content["model"])
    torch.save(content, path)
    return refusal(path)


def test_an_unknown_tensor_is_named(written, tmp_path):
    message = damaged(
        written, tmp_path / "model.pt", lambda state: state.update({"w2v_encoder.adapter": torch.zeros(1)})
    )
    assert "no place for: w2v_encoder.adapter;" in message


def test_of_many_unknown_tensors_three_are_named(written, tmp_path):
    more = {f"extra{i}": torch.zeros(1) for i in range(5)}
    assert "extra0, extra1, extra2 and 2 more" in damaged(
        written, tmp_path / "model.pt", lambda state: state.update(more)
    )


def test_a_missing_tensor_is_named(written, tmp_path):
    assert f"no tensor {KEY} (32,)" in damaged(written, tmp_path / "model.pt", lambda state: state.pop(KEY))


def test_a_tensor_of_another_shape_is_named(written, tmp_path):
    message = damaged(written, tmp_path / "model.pt", lambda state: state.update({KEY: torch.zeros(31)}))
    assert f"{KEY} has shape (31,), its configuration asks for (32,)" in message


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / "model.pt").write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"model\.pt exists"):
        save_pretrained(Pretrained(CARD, {}), tmp_path / "model.pt", name)
    assert (tmp_path / "model.pt").read_bytes() == b"old"


def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(ValueError, match="no format 'onnx'; give one of ours, huggingface, fairseq, torchaudio"):
        save_pretrained(Pretrained(CARD, {}), tmp_path / "model", "onnx")
