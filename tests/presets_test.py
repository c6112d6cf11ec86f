"""The published architectures by their shapes alone: nothing is allocated."""

import jax
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from w2v2_jax import presets  # noqa: E402
from w2v2_jax.context_network import AdaptedPreNormLayer  # noqa: E402
from w2v2_jax.convert.card import Card  # noqa: E402
from w2v2_jax.convert.huggingface import derived_of, names_of  # noqa: E402
from w2v2_jax.convert.huggingface_config import config_of  # noqa: E402
from w2v2_jax.convert.parameters import abstract_params, places  # noqa: E402
from w2v2_jax.heads import FrameClassifier, SequenceClassifier, WeightedLayers, XVectorModel  # noqa: E402
from w2v2_jax.masking import TIME_MASK  # noqa: E402
from w2v2_jax.model import CTCModel, EncoderModel  # noqa: E402

PUBLISHED = {
    "base": 95_044_608,
    "large": 317_380_864,
    "large_lv60": 317_390_592,
    "robust": 317_390_592,
    "xlsr_53": 317_390_592,
    "xls_r_300m": 317_390_592,
    "xls_r_1b": None,
    "xls_r_2b": None,
    "mms_300m": 317_390_592,
    "mms_1b": None,
    "conformer_relative": None,
    "conformer_rotary": None,
}
CLASSES = ("a", "b", "c")


def size(model):
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(model))
    return sum(leaf.size for path, leaf in leaves if "statistics" not in jax.tree_util.keystr(path))


def theirs(card):
    """The class of transformers that the network's own config.json makes, on a device without memory."""
    config = config_of(card)
    [architecture] = config["architectures"]
    make = getattr(transformers, architecture)
    with torch.device("meta"):
        return make(make.config_class(**config))


def assert_same_tensors(card):
    """Every name and every shape: none missing, none over."""
    reference = theirs(card)
    ours = {name: place.shape for place in places(card.model, names_of(card)).values() for name in place.names}
    ours |= {name: array.shape for name, array in derived_of(card).items()}
    assert ours == {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    assert size(card.model) == sum(weight.numel() for weight in reference.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_tensors_that_transformers_has(name):
    model = getattr(presets, name)()
    assert_same_tensors(Card(model, normalise=True, time_mask=TIME_MASK))
    assert PUBLISHED[name] in (None, size(model))


@pytest.mark.parametrize(("name", "millions"), [("xls_r_300m", 317), ("xls_r_1b", 965), ("xls_r_2b", 2162)])
def test_xls_r_has_the_millions_of_parameters_of_its_paper(name, millions):
    assert round(size(getattr(presets, name)()) / 1e6) == pytest.approx(millions, abs=3)


def with_adapters(encoder):
    layer = AdaptedPreNormLayer(num_heads=16, ffn_dim=encoder.context_network.layer.ffn_dim, adapter_dim=16)
    return encoder.clone(context_network=encoder.context_network.clone(layer=layer))


HEADS = {
    "none": EncoderModel,
    "CTC": lambda encoder: CTCModel(encoder, num_labels=32),
    "sequence": lambda encoder: SequenceClassifier(encoder, 3),
    "frame": lambda encoder: FrameClassifier(encoder, 3),
    "frame of all layers": lambda encoder: FrameClassifier(encoder, 3, WeightedLayers),
    "x-vector of all layers": lambda encoder: XVectorModel(encoder, 3, representation=WeightedLayers),
    "CTC with adapters": lambda encoder: CTCModel(with_adapters(encoder), num_labels=154),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_has_the_tensors_that_transformers_has(head):
    model = HEADS[head](presets.mms_1b().encoder)
    assert_same_tensors(Card(model, normalise=True, classes=CLASSES, time_mask=TIME_MASK))
