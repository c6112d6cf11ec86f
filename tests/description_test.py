import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import NamedTuple

import jax
import micro
import pytest

from w2v2_jax import presets
from w2v2_jax.context_network import ContextNetwork
from w2v2_jax.data.text import LETTERS
from w2v2_jax.description import build, changes, describe
from w2v2_jax.experiment import from_scratch
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.optimizers import Adam, Freeze, TriStage
from w2v2_jax.warm_start import WarmStart


def through_json(obj):
    return build(json.loads(json.dumps(describe(obj))))


@dataclasses.dataclass(frozen=True)
class Setting:
    value: object

    class Inner(NamedTuple):
        value: int = 0

    def method(self):
        """Found by no import: it belongs to an instance."""


@pytest.mark.parametrize("make", [micro.pretraining, micro.finetuning])
def test_experiment_comes_back_equal(make):
    """With Linen modules, functions and classes as settings, NamedTuples, a vocabulary and infinity."""
    freezes = (Freeze("encoder.feature_encoder", math.inf), Freeze("encoder", 10))
    experiment = make(optimizer=Adam(TriStage(3e-5), freezes=freezes), init_from=WarmStart(Path("runs") / "base"))
    assert through_json(experiment) == experiment


@pytest.mark.parametrize("preset", [presets.tiny, presets.base, presets.large, presets.large_lv60])
def test_preset_comes_back_equal(preset):
    assert through_json(preset()) == preset()


@pytest.mark.parametrize(
    "value",
    [True, 3, 0.1, -math.inf, "text", None, (), (1, (2.5, "x")), Path("a/b"), LETTERS, from_scratch, FeatureEncoder],
)
def test_setting_comes_back_as_it_was(value):
    back = through_json(Setting(value)).value
    assert back == value
    assert type(back) is type(value)


@dataclasses.dataclass(frozen=True)
class Scoped:
    name: str
    scope: str = "all"


def test_settings_named_as_what_linen_modules_carry_are_settings_elsewhere():
    assert through_json(Scoped("mine")) == Scoped("mine")


def test_policies_of_jax_can_be_settings():
    network = ContextNetwork(remat_policy=jax.checkpoint_policies.nothing_saveable)
    assert through_json(network) == network


def test_lists_become_tuples():
    assert through_json([1, [2]]) == (1, (2,))


def nested():
    def inner():
        pass

    return inner


@pytest.mark.parametrize(
    "value",
    [lambda x: x, nested(), functools.partial(nested), Setting(1).method, Setting.Inner(), {"a": 1}, {1, 2}, b"bytes"],
    ids=["lambda", "closure", "partial", "method", "nested class", "dict", "set", "bytes"],
)
def test_what_could_not_be_found_again_is_refused_at_once(value):
    with pytest.raises(ValueError, match="has no name that a checkpoint could find it by"):
        describe(Setting(value))


@pytest.mark.parametrize("name", ["nowhere.Model", "w2v2_jax.model.Wav2Vec3", "Model"])
def test_unknown_class_is_named(name):
    with pytest.raises(ValueError, match=f"can't find {name}"):
        build({"is": name, "with": {}})


def test_unknown_setting_is_named():
    with pytest.raises(ValueError, match=r"Freeze has changed since this was saved.*until_noon"):
        build({"is": "w2v2_jax.optimizers.Freeze", "with": {"path": "encoder", "until_noon": 1}})


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.dict", "w2v2_jax.data.text.LETTERS"])
def test_nothing_but_dataclasses_and_named_tuples_is_ever_called(name):
    """Nor an instance of one: it may be callable."""
    with pytest.raises(ValueError, match=f"{name} is no dataclass or NamedTuple"):
        build({"is": name, "with": {}})


def test_changes_are_the_settings_that_differ():
    old, new = (describe(micro.pretraining(**settings)) for settings in ({}, {"num_steps": 12_345, "seed": 9}))
    assert not list(changes(old, old))
    assert not list(changes(json.loads(json.dumps(old)), old))
    assert [change.partition(":")[0] for change in changes(old, new)] == ["num_steps", "seed"]
    assert list(changes(old, new))[1] == "seed: 0 -> 9"


def test_changes_inside_settings_have_their_path_and_other_classes_their_names():
    wide = describe(Setting(presets.tiny().quantizer))
    assert list(changes(wide, describe(Setting(dataclasses.replace(presets.tiny().quantizer, dim=6))))) == [
        "value.dim: 64 -> 6"
    ]
    (change,) = changes(wide, describe(Setting(3)))
    assert change.startswith("value: w2v2_jax.quantizer.GumbelQuantizer -> 3")
