"""Networks from folders of transformers: used in three lines, started from, and written in every format."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_transformers as tiny  # noqa: E402

from w2v2_jax.convert.card import FormatError  # noqa: E402
from w2v2_jax.model import PretrainingModel  # noqa: E402
from w2v2_jax.pretrained import TARGETS, Pretrained, from_pretrained, open_any, placed, save_pretrained  # noqa: E402
from w2v2_jax.warm_start import WarmStart  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

FAIRSEQ_ORDER = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAON")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUP_NORM = {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False, "adapter_attn_dim": None}
CLIPS = tiny.waveforms(700, 420, 510)


@pytest.fixture(scope="module")
def theirs():
    """With group norm, where padding could matter most, and masks."""
    changes = SIZES | GROUP_NORM | {"mask_time_prob": 0.3, "pad_token_id": 0}
    return tiny.network("Wav2Vec2ForCTC", tiny.config_of("Wav2Vec2ForCTC", 1, **changes))


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    folder = tiny.folder_of(theirs, tmp_path_factory.mktemp("network"), processor=False)
    tiny.processor_of(folder, FAIRSEQ_ORDER).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return from_pretrained(folder)


def assert_same_params(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_three_lines_give_what_transformers_gives_for_each_clip_alone(folder, theirs):
    """Clips of different lengths as one batch, each normalised by itself."""
    network = from_pretrained(folder)
    logits = network(CLIPS)
    num_frames = network.num_frames(CLIPS)

    processor = transformers.AutoProcessor.from_pretrained(folder)
    for row, clip in enumerate(CLIPS):
        with torch.no_grad():
            expected = theirs(processor(clip, sampling_rate=16_000, return_tensors="pt").input_values).logits[0]
        assert num_frames[row] == len(expected)
        np.testing.assert_allclose(logits[row, : num_frames[row]], expected, rtol=1e-4, atol=1e-4)


def test_a_batch_gives_what_each_clip_gives_alone(ours):
    together = ours(CLIPS)
    for row, clip in enumerate(CLIPS[:2]):
        [alone] = ours([clip])
        np.testing.assert_allclose(together[row, : len(alone)], alone, rtol=1e-5, atol=2e-5)


def test_a_clip_shorter_than_a_frame_has_none(ours):
    short = np.ones(5, np.float32)
    assert ours.num_frames([short]) == [0]
    assert jnp.isfinite(ours([short])).all()


def test_a_pretraining_network_gives_all_that_its_encoder_gives_of_waveforms_normalised_if_the_card_says_so(tmp_path):
    """With layer norm, to which loudness and mean of a waveform make a difference."""
    layer_norm = {"feat_extract_norm": "layer", "conv_bias": True}
    config = tiny.config_of("Wav2Vec2ForPreTraining", 2, **SIZES, **layer_norm)
    theirs = tiny.network("Wav2Vec2ForPreTraining", config)
    ours = from_pretrained(tiny.folder_of(theirs, tmp_path))
    assert isinstance(ours.card.model, PretrainingModel)
    [clip] = tiny.waveforms(500)
    normalised = (clip - clip.mean()) / clip.std()
    contexts = []
    for normalise, taken in ((True, normalised), (False, clip)):
        encoded = Pretrained(dataclasses.replace(ours.card, normalise=normalise), ours.params)([clip])
        with torch.no_grad():
            expected = theirs.wav2vec2(torch.tensor(taken[None]))
        np.testing.assert_allclose(encoded.context, expected.last_hidden_state, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(encoded.features, expected.extract_features, rtol=1e-4, atol=1e-4)
        contexts.append(encoded.context)
    assert jnp.abs(contexts[0] - contexts[1]).max() > 0.01


def test_parameters_lie_on_every_device(ours):
    for leaf in jax.tree.leaves(ours.params):
        assert leaf.dtype == jnp.float32
        assert leaf.sharding.device_set == set(jax.local_devices())
        assert leaf.is_fully_replicated


def test_opening_reads_no_parameter(folder, monkeypatch):
    def read(tensor):
        raise AssertionError(f"{tensor.name} was read")

    monkeypatch.setattr("w2v2_jax.convert.safetensors_files.SafeTensor.read", read)
    assert open_any(folder).card.model.num_labels == len(FAIRSEQ_ORDER)


def test_a_warm_start_from_transformers_takes_the_encoder_as_it_is_and_leaves_the_head(folder, ours):
    encoder = jax.tree.map(jnp.zeros_like, ours.params["encoder"])
    head = {"kernel": jnp.ones((32, 7))}
    started = WarmStart(folder)({"encoder": encoder, "head": head})
    assert_same_params(started["encoder"], ours.params["encoder"])
    assert started["head"] is head


def test_a_warm_start_from_transformers_of_another_size_is_an_error_that_names_the_first_difference(folder, ours):
    model = ours.card.model
    wider = placed(model.clone(encoder=model.encoder.clone(embed_dim=64)))
    with pytest.raises(FormatError, match=r"of another model: encoder/.* has shape \(.*64.*\) here, there .*32"):
        WarmStart(folder)({"encoder": wider["encoder"]})


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_written_over(target, ours, tmp_path):
    existing = tmp_path / "existing.pt"
    existing.mkdir()
    with pytest.raises(FileExistsError, match=r"exists; give another name, or remove it first$"):
        save_pretrained(ours, existing, target)
    assert not list(existing.iterdir())


def test_an_unknown_format_is_refused_with_those_that_are_known(ours, tmp_path):
    with pytest.raises(ValueError, match=r"no format 'onnx'; give one of ours, huggingface, fairseq, torchaudio$"):
        save_pretrained(ours, tmp_path / "network", "onnx")


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*/nothing: no checkpoint, folder or file$"):
        from_pretrained(tmp_path / "nothing")


WITHOUT_TORCH = """
    import importlib.abc, json, sys

    class Blocked(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("torch", "transformers", "fairseq", "torchaudio"):
                raise ModuleNotFoundError(f"{name} is not installed")

    sys.meta_path.insert(0, Blocked())
    sys.modules.pop("torch", None)

    import jax, numpy
    jax.config.update("jax_platforms", "cpu")
    from w2v2_jax.pretrained import TARGETS, from_pretrained, save_pretrained

    source, target = sys.argv[1:]
    network = from_pretrained(source)
    for each in TARGETS:
        file = f"{target}/{each}.pt" if each == "fairseq" else f"{target}/{each}"
        save_pretrained(network, file, each)
        again = from_pretrained(file)
        assert again.card.model.num_labels == network.card.model.num_labels
        for name in ("encoder", "head"):
            ours, theirs = dict(network.params[name]), dict(again.params[name])
            if each == "torchaudio" and name == "encoder":
                del ours["mask_embedding"], theirs["mask_embedding"]
            jax.tree.map(numpy.testing.assert_array_equal, ours, theirs)
        print(each)
"""


def test_all_formats_are_read_and_written_without_any_of_the_libraries(folder, tmp_path):
    program = textwrap.dedent(WITHOUT_TORCH)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(TARGETS)
    assert json.loads((tmp_path / "huggingface" / "config.json").read_text())["model_type"] == "wav2vec2"
