"""Folders that transformers on PyTorch saves, read and written again, with networks drawn at random."""

import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_transformers as tiny  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from w2v2_jax.convert import huggingface  # noqa: E402
from w2v2_jax.convert.card import FormatError  # noqa: E402
from w2v2_jax.convert.formats import open_weights  # noqa: E402
from w2v2_jax.convert.safetensors_files import write_safetensors  # noqa: E402
from w2v2_jax.feature_encoder import FairseqGroupNormConv  # noqa: E402
from w2v2_jax.model import EncoderModel, PretrainingModel  # noqa: E402
from w2v2_jax.pretrained import Pretrained, from_pretrained, save_pretrained  # noqa: E402
from w2v2_jax.recognition import load_recogniser  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

WEIGHTS = "model.safetensors"
SAMPLES = 700


class Drawn(NamedTuple):
    """A network in both libraries, and the folder it came in."""

    architecture: str
    theirs: torch.nn.Module
    folder: Path
    ours: Pretrained


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """One of each architecture, made when it is first asked for."""

    @functools.cache
    def network(architecture):
        folder = tmp_path_factory.mktemp(architecture)
        seed = 100 + tiny.ARCHITECTURES.index(architecture)
        theirs = tiny.network(architecture, tiny.config_of(architecture, seed), seed)
        tiny.folder_of(theirs, folder)
        return Drawn(architecture, theirs, folder, from_pretrained(folder))

    return network


@pytest.fixture(params=tiny.ARCHITECTURES)
def drawn(request, networks):
    return networks(request.param)


def assert_as_saved(folder, drawn):
    """transformers loads the folder: every tensor and setting of the network, and no more, to the last bit."""
    loaded, report = getattr(transformers, drawn.architecture).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    tensors, expected = loaded.state_dict(), drawn.theirs.state_dict()
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    settings, drawn_settings = loaded.config.to_dict(), drawn.theirs.config.to_dict()
    assert settings | {"_name_or_path": ""} == drawn_settings | {"_name_or_path": ""}


def test_a_network_comes_back_as_it_was(drawn, tmp_path):
    save_pretrained(drawn.ours, tmp_path / "export", "huggingface")
    assert_as_saved(tmp_path / "export", drawn)
    assert open_weights(tmp_path / "export").card == drawn.ours.card


@pytest.mark.parametrize("drawn", ["Wav2Vec2ForCTC", "Wav2Vec2ConformerForXVector"], indirect=True)
def test_a_network_comes_back_as_it_was_through_a_checkpoint_of_ours(drawn, tmp_path):
    save_pretrained(drawn.ours, tmp_path / "ours")
    ours = from_pretrained(tmp_path / "ours")
    assert ours.card == drawn.ours.card
    save_pretrained(ours, tmp_path / "export", "huggingface")
    assert_as_saved(tmp_path / "export", drawn)


def their_outputs(model, batch):
    with torch.no_grad():
        output = model(torch.tensor(batch))
    names = ("last_hidden_state", "extract_features", "projected_states", "embeddings", "logits")
    names += ("projected_quantized_states",)
    return {name: output[name].numpy() for name in names if name in output}


def our_outputs(pretrained, batch):
    """By the names of transformers."""
    model, params = pretrained.card.model, {"params": pretrained.params}
    if not isinstance(model, PretrainingModel):
        as_it_is = Pretrained(dataclasses.replace(pretrained.card, normalise=False), pretrained.params)
        output = as_it_is(list(batch))
        if isinstance(model, EncoderModel):
            return {"last_hidden_state": output.context, "extract_features": output.features}
        return output._asdict() if hasattr(output, "_asdict") else {"logits": output}
    shape = len(batch), model.encoder.num_frames(batch.shape[1])
    every_frame = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    noise = jnp.zeros((*shape, model.quantizer.num_groups, model.quantizer.num_entries))
    lengths = jnp.full(len(batch), batch.shape[1])
    output = jax.jit(model.apply)(params, batch, lengths, jnp.zeros(shape, bool), every_frame, noise, 1.0)
    return {"projected_states": output.context, "projected_quantized_states": output.quantized}


def in_bfloat16(pretrained):
    model = pretrained.card.model
    half = model.clone(encoder=model.encoder.clone(dtype="bfloat16"))
    return Pretrained(dataclasses.replace(pretrained.card, model=half), pretrained.params)


def test_outputs_equal_those_of_transformers_for_clips_together_and_alone(drawn):
    batch = np.stack(tiny.waveforms(SAMPLES, SAMPLES))
    ours, together = our_outputs(drawn.ours, batch), their_outputs(drawn.theirs, batch)
    assert together.keys() <= ours.keys()
    for name, expected in together.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
    for row in (0, 1):
        for name, expected in their_outputs(drawn.theirs, batch[row : row + 1]).items():
            np.testing.assert_allclose(ours[name][row], expected[0], rtol=1e-4, atol=1e-4, err_msg=name)


def test_outputs_in_bfloat16_are_those_of_transformers_in_float32_within_a_hundredth(drawn):
    batch = np.stack(tiny.waveforms(SAMPLES, SAMPLES))
    ours, theirs = our_outputs(in_bfloat16(drawn.ours), batch), their_outputs(drawn.theirs, batch)
    for name in theirs:
        difference = np.asarray(ours[name], np.float32) - theirs[name]
        if name == "projected_quantized_states":  # of two entries that score about the same the other may be chosen
            is_other = np.abs(difference).max(axis=-1) > 1e-3
            assert is_other.mean() < 0.05
            difference[is_other] = 0
        assert np.linalg.norm(difference) < 0.01 * np.linalg.norm(theirs[name]), name


CTC = {"conv_dim": [8, 8, 8], "conv_kernel": [10, 8, 4], "conv_stride": [5, 8, 4], "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """A network that writes text of all letters, with frames as long as are usual."""
    theirs = tiny.network("Wav2Vec2ForCTC", tiny.config_of("Wav2Vec2ForCTC", 3, **CTC))
    with torch.no_grad():
        logits = theirs(torch.tensor(np.stack(tiny.waveforms(16_000)))).logits
        theirs.lm_head.bias.sub_(logits.mean(dim=(0, 1)))
        theirs.lm_head.bias[[tiny.SYMBOLS.index(special) for special in ("<s>", "</s>", "<unk>")]] -= 100
    folder = tiny.folder_of(theirs, tmp_path_factory.mktemp("recogniser"))
    return Drawn("Wav2Vec2ForCTC", theirs, folder, from_pretrained(folder))


def sharded_safetensors(tensors, folder, model):
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def torch_file(tensors, folder, model):
    torch.save(tensors, folder / "pytorch_model.bin")


def sharded_torch_files(tensors, folder, model):
    names = sorted(tensors)
    shards = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    tiny.write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})


OLDER = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def older_spelling(tensors, folder, model):
    renamed = {re.sub("|".join(OLDER), lambda found: OLDER[found[0]], name): each for name, each in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, folder / WEIGHTS)


@pytest.mark.parametrize("write", [sharded_safetensors, torch_file, sharded_torch_files, older_spelling])
def test_weights_are_the_same_in_whatever_files_they_are(write, recogniser, tmp_path):
    shutil.copytree(recogniser.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / WEIGHTS).unlink()
    write(dict(recogniser.theirs.state_dict()), tmp_path, recogniser.theirs)
    read = from_pretrained(tmp_path)
    assert read.card == recogniser.ours.card
    jax.tree.map(np.testing.assert_array_equal, read.params, recogniser.ours.params)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_become_float32_unchanged(dtype, recogniser, tmp_path):
    shutil.copytree(recogniser.folder, tmp_path / "half")
    shutil.copytree(recogniser.folder, tmp_path / "rounded")
    half = {name: tensor.to(dtype) for name, tensor in recogniser.theirs.state_dict().items()}
    save_file(half, tmp_path / "half" / WEIGHTS)
    save_file({name: tensor.float() for name, tensor in half.items()}, tmp_path / "rounded" / WEIGHTS)
    ours, rounded = (from_pretrained(tmp_path / name).params for name in ("half", "rounded"))
    jax.tree.map(np.testing.assert_array_equal, ours, rounded)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(jnp.float32)}


def their_text(folder, clips):
    """What transformers recognises in each clip by itself."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForCTC.from_pretrained(folder).eval()
    texts = []
    for clip in clips:
        inputs = processor(clip, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            texts += processor.batch_decode(model(inputs.input_values).logits.argmax(dim=-1))
    return [" ".join(text.split()) for text in texts]


def test_a_recogniser_writes_what_transformers_writes_before_and_after_an_export(recogniser, tmp_path):
    """With the blank as the last label, in lower case, of waveforms that are to be normalised."""
    shutil.copytree(recogniser.folder, tmp_path / "theirs")
    tiny.processor_of(tmp_path / "theirs", do_lower_case=True).save_pretrained(tmp_path / "theirs")
    clips = tiny.waveforms(9000, 5000, 12000)
    expected = their_text(tmp_path / "theirs", clips)
    assert all(len(set(text)) > 3 and text.islower() for text in expected) and " " in "".join(expected), expected
    assert [each.text for each in load_recogniser(tmp_path / "theirs").transcribe(clips)] == expected
    save_pretrained(from_pretrained(tmp_path / "theirs"), tmp_path / "export", "huggingface")
    assert their_text(tmp_path / "export", clips) == expected


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("form", ["processor_config.json", "preprocessor_config.json"])
def test_whether_waveforms_are_normalised_is_read_from_either_file_and_written(
    form, do_normalize, recogniser, tmp_path
):
    shutil.copytree(recogniser.folder, tmp_path / "theirs")
    (tmp_path / "theirs" / "processor_config.json").unlink()
    processor = tiny.processor_of(tmp_path / "theirs", do_normalize=do_normalize)
    saved = processor if form == "processor_config.json" else processor.feature_extractor
    saved.save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs" / form).exists()
    card = open_weights(tmp_path / "theirs").card
    assert card.normalise is do_normalize
    huggingface.write(card, {}, tmp_path / "export")
    exported = transformers.AutoProcessor.from_pretrained(tmp_path / "export")
    assert isinstance(exported, transformers.Wav2Vec2Processor)
    assert exported.feature_extractor.do_normalize is do_normalize
    assert exported.feature_extractor.sampling_rate == 16_000


@pytest.mark.parametrize("seed, norm", [(101, "layer"), (100, "group")])
def test_padding_is_masked_by_an_exported_processor_where_the_network_was_trained_so(seed, norm, tmp_path):
    config = tiny.config_of("Wav2Vec2Model", seed, feat_extract_norm=norm, conv_bias=norm == "layer")
    tiny.network("Wav2Vec2Model", config).save_pretrained(tmp_path / "theirs")
    huggingface.write(open_weights(tmp_path / "theirs").card, {}, tmp_path / "export")
    exported = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "export")
    assert exported.return_attention_mask is (norm == "layer")


LANGUAGES = {
    "eng": ("<pad>", "<s>", "</s>", "<unk>", "|", *"abcde"),
    "fra": ("<pad>", "<s>", "</s>", "<unk>", "|", *"aé"),
}


@pytest.fixture(scope="module")
def many_languages(tmp_path_factory):
    """As MMS: adapters and a head for each of two languages, the first of which is also among the weights."""
    folder = tmp_path_factory.mktemp("many_languages")
    tiny.write_json(folder / "vocab.json", {lang: {s: i for i, s in enumerate(of)} for lang, of in LANGUAGES.items()})
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), target_lang="eng")
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    layer_norm = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True, "adapter_attn_dim": 6}
    for number, (language, symbols) in enumerate(LANGUAGES.items()):
        sizes = {"vocab_size": len(symbols), "pad_token_id": 0}
        config = tiny.config_of("Wav2Vec2ForCTC", 5, **layer_norm, **sizes)
        model = tiny.network("Wav2Vec2ForCTC", config, seed=number)
        save_file(dict(model._get_adapters()), folder / f"adapter.{language}.safetensors")
        if language == "eng":
            model.save_pretrained(folder)
    return folder


def in_language(folder, language):
    return transformers.Wav2Vec2ForCTC.from_pretrained(
        folder, target_lang=language, ignore_mismatched_sizes=True
    ).eval()


def test_the_adapters_of_a_language_give_the_logits_of_transformers(many_languages, tmp_path):
    language = "fra"
    batch = np.stack(tiny.waveforms(SAMPLES, SAMPLES))
    expected = their_outputs(in_language(many_languages, language), batch)["logits"]
    ours = from_pretrained(many_languages, language)
    assert ours.card.vocabulary.symbols == LANGUAGES[language]
    np.testing.assert_allclose(our_outputs(ours, batch)["logits"], expected, rtol=1e-4, atol=1e-4)

    save_pretrained(ours, tmp_path / "export", "huggingface")
    exported = in_language(tmp_path / "export", language)
    np.testing.assert_array_equal(their_outputs(exported, batch)["logits"], expected)
    adapters, original = (
        load_file(f / f"adapter.{language}.safetensors") for f in (tmp_path / "export", many_languages)
    )
    assert adapters.keys() == original.keys()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "export")
    assert processor.batch_decode([[5, 0, 6, 4, 6]]) == [ours.card.vocabulary.decode([5, 6, 4, 6])]
    again = from_pretrained(tmp_path / "export")
    assert again.card == ours.card
    jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)


def test_without_a_language_that_of_the_tokenizer_is_taken(many_languages):
    assert open_weights(many_languages).card.language == "eng"


def test_the_adapters_among_the_weights_are_those_of_the_tokenizers_language(many_languages, tmp_path):
    shutil.copytree(many_languages, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter.eng.safetensors").unlink()
    jax.tree.map(
        np.testing.assert_array_equal, from_pretrained(tmp_path, "eng").params, from_pretrained(many_languages).params
    )


def test_a_language_that_is_not_there_is_named_with_those_that_are(many_languages, recogniser, tmp_path):
    with pytest.raises(FormatError, match=r"no adapter for 'deu'; it has eng, fra$"):
        open_weights(many_languages, "deu")
    with pytest.raises(FormatError, match="no attention adapters, so there is no language 'deu' to choose"):
        open_weights(recogniser.folder, "deu")
    shutil.copytree(many_languages, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("adapter.*"):
        file.unlink()
    with pytest.raises(FormatError, match=r"no adapter for 'fra'; it has eng$"):
        open_weights(tmp_path, "fra")


def test_an_export_of_several_files_is_loaded_by_transformers(recogniser, tmp_path):
    save_pretrained(recogniser.ours, tmp_path / "export", "huggingface")
    weights = tmp_path / "export" / WEIGHTS
    tensors = huggingface.read(tmp_path / "export").tensors
    write_safetensors(tensors, tmp_path / "export", max_shard_bytes=20_000)
    assert len(list((tmp_path / "export").glob("model-*-of-*.safetensors"))) > 2
    weights.unlink()
    assert_as_saved(tmp_path / "export", recogniser)


def test_a_folder_without_weights_is_left_where_a_network_cannot_be_written(recogniser, tmp_path):
    model = recogniser.ours.card.model
    features = model.encoder.feature_encoder.clone(first=FairseqGroupNormConv)
    model = model.clone(encoder=model.encoder.clone(feature_encoder=features))
    card = dataclasses.replace(recogniser.ours.card, model=model)
    with pytest.raises(FormatError, match="transformers has nothing like"):
        huggingface.write(card, {}, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def without(file):
    return lambda folder: (folder / file).unlink()


def with_text(file, text):
    return lambda folder: (folder / file).write_text(text)


def cut_short(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def without_a_shard(folder):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


def with_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        tiny.write_json(folder / "config.json", config | changes)

    return change


def with_tensors(change):
    def changed(folder):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return changed


def at_8_khz(folder):
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)


DAMAGE = {
    "truncated weights": (cut_short, r"model.safetensors is cut short or no safetensors file \(.*\); fetch it again$"),
    "a text as weights": (with_text(WEIGHTS, "no weights at all"), "is cut short or no safetensors file .*fetch"),
    "a pointer of git": (with_text(WEIGHTS, "version https://git-lfs.github.com"), "fetch it with git lfs pull$"),
    "names for classes": (with_config(architectures="Wav2Vec2ForCTC"), "architectures='Wav2Vec2ForCTC'"),
    "empty weights": (with_text(WEIGHTS, ""), "is cut short or no safetensors file .*fetch"),
    "no weights": (without(WEIGHTS), "a config.json but no weights; accepted are model.safetensors, pytorch_model.bin"),
    "no shard": (without_a_shard, "is not whole: its index names model-00002-of-00002.safetensors, which isn't there"),
    "broken index": (
        lambda folder: [without(WEIGHTS)(folder), with_text("model.safetensors.index.json", "{}")(folder)],
        "model.safetensors.index.json has no weight_map",
    ),
    "broken config": (with_text("config.json", '{"model_type": "wav2'), "config.json is not JSON: .*; fetch it again$"),
    "a list as config": (with_text("config.json", "[1]"), "config.json is a list, not a JSON object; fetch it again$"),
    "no config": (without("config.json"), "has no config.json; accepted are folders of transformers"),
    "null in config": (with_config(conv_dim=None), r"conv_dim=None, which should be something like \[512, "),
    "text for a number": (with_config(hidden_size="big"), "hidden_size='big', which should be something like 768$"),
    "HuBERT": (
        with_config(model_type="hubert"),
        "checkpoint of 'hubert'; accepted are wav2vec2 and wav2vec2-conformer",
    ),
    "Whisper": (with_config(model_type="whisper"), "a checkpoint of 'whisper'; accepted are wav2vec2 and"),
    "another head": (
        with_config(architectures=["Wav2Vec2ForMaskedLM"]),
        "checkpoint of Wav2Vec2ForMaskedLM; accepted are Wav2Vec2Model, Wav2Vec2ForPreTraining, Wav2Vec2ForCTC, ",
    ),
    "an adapter": (with_config(add_adapter=True), "config.json has add_adapter=True, which .*; accepted: False$"),
    "a bias": (
        with_config(feat_extract_norm="group", conv_bias=True),
        "config.json has conv_bias=True, which no published wav2vec 2.0 has; accepted: False$",
    ),
    "no vocabulary": (without("vocab.json"), "no vocab.json, which says what a CTC head's outputs are; put it there$"),
    "another vocabulary": (
        with_text("vocab.json", '{"<pad>": 0, "a": 1}'),
        "2 symbols with ids up to 1, the head 10 outputs: that takes the ids 0 to 9 once each; give the vocabulary",
    ),
    "8 kHz": (at_8_khz, "is for audio of 8000 Hz; accepted is 16000 Hz$"),
    "an unknown tensor": (
        with_tensors(lambda tensors: tensors.update({"extra.weight": torch.zeros(2)})),
        "has tensors that its configuration has no place for: extra.weight; give the configuration",
    ),
    "many unknown tensors": (
        with_tensors(lambda tensors: tensors.update({f"extra.{i}": torch.zeros(2) for i in range(5)})),
        "no place for: extra.0, extra.1, extra.2 and 2 more;",
    ),
    "a missing tensor": (
        with_tensors(lambda tensors: tensors.pop("lm_head.bias")),
        r"has no tensor lm_head.bias \(10,\), which its configuration asks for; nearest: lm_head.weight$",
    ),
    "another shape": (
        with_tensors(lambda tensors: tensors.update({"lm_head.bias": torch.zeros(9)})),
        r"lm_head.bias has shape \(9,\), its configuration asks for \(10,\)$",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_with_a_folder_is_told_in_one_line(damage, recogniser, tmp_path):
    spoil, message = DAMAGE[damage]
    shutil.copytree(recogniser.folder, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path)
    with pytest.raises(FormatError, match=message) as error:
        open_weights(tmp_path)
    assert "\n" not in str(error.value)


def test_nothing_is_written_over(recogniser, tmp_path):
    with pytest.raises(FileExistsError, match="exists; give another name, or remove it first"):
        save_pretrained(recogniser.ours, tmp_path, "huggingface")
    assert not list(tmp_path.iterdir())


def test_a_mask_embedding_that_is_not_there_is_drawn_with_a_warning(recogniser, tmp_path, caplog):
    """The weights of facebook/wav2vec2-base-960h have none, though its config.json has masks."""
    shutil.copytree(recogniser.folder, tmp_path, dirs_exist_ok=True)
    assert "wav2vec2.masked_spec_embed" not in load_file(tmp_path / WEIGHTS)
    with_config(mask_time_prob=0.05)(tmp_path)
    params = from_pretrained(tmp_path).params
    assert "has no mask embedding; it is drawn as before any training" in caplog.text
    embedding = params["encoder"]["mask_embedding"]
    assert 0 <= embedding.min() < 0.2 and 0.8 < embedding.max() < 1
    jax.tree.map(np.testing.assert_array_equal, params["head"], recogniser.ours.params["head"])


def test_a_mask_embedding_is_read_even_if_the_network_is_no_longer_trained_with_masks(recogniser, tmp_path):
    shutil.copytree(recogniser.folder, tmp_path, dirs_exist_ok=True)
    size = recogniser.ours.card.model.encoder.embed_dim
    save_file(
        load_file(tmp_path / WEIGHTS) | {"wav2vec2.masked_spec_embed": torch.arange(size) / size}, tmp_path / WEIGHTS
    )
    params = from_pretrained(tmp_path).params
    np.testing.assert_array_equal(params["encoder"]["mask_embedding"], np.arange(size, dtype=np.float32) / size)


def test_a_folder_without_a_preprocessor_is_taken_as_fairseq_has_it_with_a_warning(networks, caplog):
    drawn = networks("Wav2Vec2Model")
    layer_norm = drawn.theirs.config.feat_extract_norm == "layer"
    assert open_weights(drawn.folder).card.normalise is layer_norm
    assert "no preprocessor_config.json; waveforms are taken to be" in caplog.text
