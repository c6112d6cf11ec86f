"""Tensors and parameters by the tables alone; with the files and networks of others in the tests of each format."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import micro
import numpy as np
import pytest

from w2v2_jax.conformer import ConformerLayer, RotaryAttention
from w2v2_jax.context_network import AdaptedPreNormLayer
from w2v2_jax.convert import names
from w2v2_jax.convert.card import FormatError
from w2v2_jax.convert.parameters import MASK_EMBEDDING, abstract_params, check, places, read_params
from w2v2_jax.convert.settings import conformer, pre_norm
from w2v2_jax.heads import FrameClassifier, SequenceClassifier, WeightedLayers, XVectorModel
from w2v2_jax.model import CTCModel, EncoderModel, PretrainingModel
from w2v2_jax.quantizer import GumbelQuantizer

ENCODER = micro.encoder()
POSITION, NETWORK = {"width": 8, "num_groups": 2}, {"num_layers": 2}
TRANSFORMER = names.with_prefix(
    names.HUGGINGFACE_ENCODER | names.HUGGINGFACE_TRANSFORMER, "wav2vec2.", names.HUGGINGFACE_HEADS
)
CONFORMER = names.with_prefix(
    names.HUGGINGFACE_ENCODER | names.HUGGINGFACE_CONFORMER, "wav2vec2_conformer.", names.HUGGINGFACE_HEADS
)


def conformer_of(**settings):
    return ENCODER.clone(context_network=conformer(ConformerLayer(2, 32, **settings), POSITION, NETWORK))


ADAPTED = ENCODER.clone(context_network=pre_norm(AdaptedPreNormLayer(2, 32, adapter_dim=4), POSITION, NETWORK))
MODELS = {
    "pretraining": (PretrainingModel(ENCODER, GumbelQuantizer(8, 2, 6)), TRANSFORMER),
    "CTC": (CTCModel(ENCODER, 5), TRANSFORMER),
    "adapters": (CTCModel(ADAPTED, 5), TRANSFORMER),
    "sequence": (SequenceClassifier(ENCODER, 3, 6), TRANSFORMER),
    "x-vectors": (XVectorModel(ENCODER, 3, ((6, 3, 1), (8, 1, 1)), 7, WeightedLayers), TRANSFORMER),
    "relative": (EncoderModel(conformer_of(width=5)), CONFORMER),
    "rotary": (FrameClassifier(conformer_of(width=5, attention=RotaryAttention), 3), CONFORMER),
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor that is stored nowhere."""

    array: np.ndarray

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype

    def read(self):
        return self.array


def tensors_of(wanted):
    """Each with numbers that no other has."""
    numbers = itertools.count()
    shapes = {name: place.shape for place in wanted.values() for name in place.names}
    return {
        name: Stored(np.array([next(numbers) for _ in range(int(np.prod(shape)))], np.float32).reshape(shape))
        for name, shape in shapes.items()
    }


@pytest.fixture(params=MODELS)
def model_and_places(request):
    model, table = MODELS[request.param]
    return model, places(model, table)


def test_shapes_of_parameters_have_the_names_of_their_axes_and_no_numbers(model_and_places):
    model, _ = model_and_places
    boxes = jax.tree.leaves(abstract_params(model), is_leaf=lambda x: isinstance(x, nn.Partitioned))
    assert all(len(box.names) == len(box.value.shape) for box in boxes)
    assert all(isinstance(box.value, jax.ShapeDtypeStruct) for box in boxes)


def test_every_number_of_every_tensor_is_one_of_a_parameter_and_goes_back_to_its_place(model_and_places):
    model, wanted = model_and_places
    tensors = tensors_of(wanted)
    check(tensors, wanted, (), "the file")
    shapes = nn.unbox(abstract_params(model))
    params = read_params(tensors, wanted, shapes, "the file")
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(len(numbers)))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    by_path = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    for path, place in wanted.items():
        for layer, name in enumerate(place.names):
            back = place.theirs(by_path[path][layer, ...] if place.stacked else by_path[path])
            np.testing.assert_array_equal(back, tensors[name].array, err_msg=name)


def test_a_linear_map_lists_outputs_first_in_torch_and_heads_are_not_apart():
    """Ours: [layer, embed, head, head_dim]; theirs, for each layer: [head x head_dim, embed]."""
    model, table = MODELS["CTC"]
    place = places(model, table)["encoder/context_network/layer/attention/query/kernel"]
    assert place.names == tuple(f"wav2vec2.encoder.layers.{i}.attention.q_proj.weight" for i in range(2))
    assert (place.stacked, place.shape) == (True, (16, 16))
    theirs = np.arange(256.0).reshape(16, 16)
    assert place.ours(theirs, (16, 2, 8))[3, 1, 5] == theirs[8 + 5, 3]


def test_part_of_the_parameters_is_read_alone():
    model, table = MODELS["CTC"]
    wanted = places(model, table)
    tensors = {name: each for name, each in tensors_of(wanted).items() if name.startswith("lm_head")}
    head = read_params(tensors, wanted, {"head": nn.unbox(abstract_params(model))["head"]}, "the file")
    np.testing.assert_array_equal(head["head"]["kernel"], tensors["lm_head.weight"].array.T)


def test_a_mask_embedding_that_is_nowhere_is_drawn_as_before_training():
    model, table = MODELS["CTC"]
    wanted = places(model, {ours: theirs for ours, theirs in table.items() if ours != MASK_EMBEDDING})
    assert MASK_EMBEDDING not in wanted
    shape = nn.unbox(abstract_params(model))["encoder"]["mask_embedding"]
    drawn = read_params({}, wanted, {"encoder": {"mask_embedding": shape}}, "the file")["encoder"]["mask_embedding"]
    assert drawn.shape == (16,) and len(set(drawn.tolist())) == 16
    assert drawn.min() >= 0 and drawn.max() < 1


def test_a_parameter_that_a_format_has_no_name_for_is_named():
    table = names.with_prefix(names.FAIRSEQ_ENCODER | names.FAIRSEQ_TRANSFORMER, "", names.FAIRSEQ_HEADS)
    with pytest.raises(FormatError, match=r"no place for encoder/.*/adapter/.*; convert to one that has, such as"):
        places(MODELS["adapters"][0], table)


def test_tensors_of_another_network_are_named():
    model, table = MODELS["CTC"]
    wanted = places(model, table)
    abstract = nn.unbox(abstract_params(model))
    told = r"the file is of another model: it has no other/bias \(5,\); nearest: head/bias$"
    with pytest.raises(FormatError, match=told):
        read_params(tensors_of(wanted), wanted, {"other": abstract["head"]}, "the file")
    wider = nn.unbox(abstract_params(CTCModel(ENCODER, 6)))
    with pytest.raises(FormatError, match=r"of another model: head/bias has shape \(6,\) here, there 1 x \(5,\)$"):
        read_params(tensors_of(wanted), wanted, {"head": wider["head"]}, "the file")


def test_each_tensor_is_accounted_for():
    model, table = MODELS["CTC"]
    wanted = places(model, table)
    tensors = tensors_of(wanted)
    frequencies = {"inv_freq": Stored(np.zeros(4))}
    check(tensors | frequencies, wanted, ["inv_freq"], "the file")
    check(tensors, wanted, ["inv_freq"], "the file")
    with pytest.raises(FormatError, match="the file has tensors that its configuration has no place for: inv_freq;"):
        check(tensors | frequencies, wanted, (), "the file")
    missing = {name: tensor for name, tensor in tensors.items() if name != "lm_head.bias"}
    with pytest.raises(FormatError, match=r"the file has no tensor lm_head.bias \(5,\).*; nearest: lm_head.weight$"):
        check(missing, wanted, (), "the file")
    transposed = tensors | {"lm_head.weight": Stored(tensors["lm_head.weight"].array.T)}
    with pytest.raises(FormatError, match=r"lm_head.weight has shape \(16, 5\), its configuration asks for \(5, 16\)$"):
        check(transposed, wanted, (), "the file")
    with pytest.raises(FormatError, match=r"has no tensor .*, which its configuration asks for; nearest: $"):
        check({}, wanted, (), "the file")
