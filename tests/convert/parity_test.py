import json

import jax
import numpy as np
import pytest
from networks import CARDS, params_of

pytest.importorskip("torch")
pytest.importorskip("transformers")

from w2v2_jax.convert.parity import Case, Certificate, certify
from w2v2_jax.pretrained import Pretrained, save_pretrained

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What transformers is to read, of a card and its parameters."""

    def written(name, params):
        path = tmp_path_factory.mktemp("theirs") / name
        save_pretrained(Pretrained(CARDS[name], params), path, "huggingface")
        return path

    return written


@pytest.mark.parametrize("name", CARDS)
def test_every_architecture_computes_what_transformers_computes_padded_or_not(folder, name):
    params = params_of(CARDS[name].model)
    certificate = certify(CARDS[name], params, folder(name, params))
    assert certificate.holds
    assert [case.name for case in certificate.cases] == ["one alone", "equal lengths", "padded"]
    for case in certificate.cases:
        assert len(case.hidden) == 3  # what goes into two layers, and each's output
        assert 0 < case.largest_difference < 1e-4
        assert case.largest > 0.1


@pytest.mark.parametrize("part", ["projection", "mask_embedding"])
def test_a_certificate_does_not_hold_for_other_weights_unless_nothing_depends_on_them(folder, part):
    card, params = CARDS["base CTC"], params_of(CARDS["base CTC"].model)
    path = folder("base CTC", params)
    other = params | {"encoder": params["encoder"] | {part: jax.tree.map(lambda x: x + 0.01, params["encoder"][part])}}
    assert certify(card, other, path).holds == (part == "mask_embedding")


def certificate(hidden=(1e-6, 3e-6), output=2e-6, largest=1.0):
    case = Case("padded", hidden, {"logits": output}, largest)
    return Certificate("Wav2Vec2ForCTC", "abc", {"jax": "1.2"}, "a machine", (case,))


def test_a_certificate_holds_up_to_a_difference_of_1e_4_of_the_largest_number():
    assert certificate(hidden=(9e-5, 1e-6)).holds
    assert not certificate(hidden=(1.1e-4, 1e-6)).holds
    assert not certificate(output=1.1e-4).holds
    assert certificate(output=1.1e-4, largest=2.0).holds
    assert not certificate(hidden=(1.1e-4, 1e-6), largest=0.01).holds


def test_a_certificate_that_is_not_a_number_does_not_hold():
    assert not certificate(output=np.nan).holds
    assert not certificate(hidden=(np.nan, 1e-6)).holds


def test_a_certificate_is_written_as_json_and_for_a_model_card():
    content = json.loads(certificate().to_json())
    assert content["cases"] == [{"name": "padded", "hidden": [1e-6, 3e-6], "outputs": {"logits": 2e-6}, "largest": 1.0}]
    assert content["holds"] is True
    assert "| padded | 3.0e-06 | logits 2.0e-06 | 1.0 |" in certificate().to_markdown()
    assert "jax 1.2" in certificate().to_markdown()
