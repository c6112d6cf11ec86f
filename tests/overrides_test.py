import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from experiments.pretrain import base_960h
from w2v2_jax.overrides import override, parse_assignment


class Quantizer(nn.Module):
    num_groups: int = 2
    temperature: float = 2.0
    dtype: str = "float32"
    seed: int | None = None

    def __post_init__(self):
        if 8 % self.num_groups or (self.seed or 0) < 0:
            raise ValueError(f"{self.num_groups} codebooks can't share 8 dimensions")
        super().__post_init__()

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_groups)(x)


class Model(nn.Module):
    quantizer: nn.Module = Quantizer()
    strides: tuple[int, ...] = (5, 2, 2)
    layers: tuple[tuple[int, int], ...] = ((8, 10), (8, 3))
    phase_ratio: tuple[float, ...] = (0.1, 0.4, 0.5)
    rules: tuple[tuple[str, str | None], ...] = ()
    activation: Callable = nn.gelu
    pre_norm: bool = False

    def __call__(self, x):
        return self.quantizer(x)


class Span(NamedTuple):
    prob: float = 0.65
    length: int = 10


@dataclasses.dataclass(frozen=True)
class Experiment:
    name: str = "base"
    model: nn.Module = Model()  # noqa: RUF009
    masks: tuple[Span, ...] = (Span(), Span(length=64))
    data_dir: Path = Path("/data")


def test_a_value_deep_inside_changes_and_nothing_else():
    before = Experiment()
    after = override(before, {"model.quantizer.num_groups": 4, "name": "mine"})
    assert after == Experiment("mine", Model(Quantizer(num_groups=4)))
    assert before == Experiment()


def test_a_changed_module_still_initialises_and_applies():
    model = override(Experiment(), {"model.quantizer.num_groups": 4}).model
    variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
    assert model.apply(variables, jnp.ones((1, 3))).shape == (1, 4)


def test_tuples_and_namedtuples_are_entered_by_index_and_field():
    after = override(Experiment(), {"masks.1.length": 32, "model.strides.0": 4})
    assert after.masks == (Span(), Span(length=32))
    assert after.model.strides == (4, 2, 2)


def test_modules_functions_and_tuples_can_be_swapped():
    quantizer = Quantizer(temperature=0.5)
    after = override(Experiment(), {"model.quantizer": quantizer, "model.activation": nn.relu, "model.strides": (5, 2)})
    assert (after.model.quantizer, after.model.activation, after.model.strides) == (quantizer, nn.relu, (5, 2))


def test_an_int_stands_for_a_float_and_a_text_for_a_path():
    after = override(Experiment(), {"model.quantizer.temperature": 1, "data_dir": "/mnt"})
    assert type(after.model.quantizer.temperature) is float
    assert after.data_dir == Path("/mnt")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("modle.strides", "no 'modle'; did you mean 'model'"),
        ("model.quantiser.num_groups", "no 'model.quantiser'; did you mean 'model.quantizer'"),
        ("model.quantizer.num_group", "did you mean 'model.quantizer.num_groups'"),
        ("masks.2", "no 'masks.2'; did you mean 'masks."),
        ("name.x", "'name' is 'base' .str., which has no settings"),
        ("model.parent", "no 'model.parent'"),
    ],
)
def test_an_unknown_path_names_the_nearest(path, message):
    with pytest.raises(ValueError, match=message):
        override(Experiment(), {path: 1})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.quantizer.num_groups", "4"),
        ("model.quantizer.num_groups", 4.0),
        ("model.quantizer.num_groups", True),
        ("model.quantizer.temperature", True),
        ("model.pre_norm", 1),
        ("model.strides", 5),
        ("masks.0", (0.5, 10)),
        ("model.strides", (5, "2")),
        ("model.layers", (1, 2)),
        ("model.phase_ratio", (0.5, (0.5,))),
        ("model.activation", "gelu"),
        ("model.quantizer", 3),
        ("model.quantizer", [3]),
        ("name", 3),
    ],
)
def test_a_value_of_another_kind_is_refused(path, value):
    with pytest.raises(ValueError, match=f"'{path}' is .* can't become"):
        override(Experiment(), {path: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.layers", ((4, 2), (4, 2), (4, 2))),
        ("model.phase_ratio", (0, 0.5, 0.5)),
        ("model.rules", (("embed", None),)),
        ("model.strides", ()),
    ],
)
def test_a_tuple_may_become_longer_or_shorter_and_an_empty_one_anything(path, value):
    assert getattr(override(Experiment(), {path: value}).model, path.removeprefix("model.")) == value


@pytest.mark.parametrize("value", ["bf16", "float", ""])
def test_a_type_that_is_not_known_is_refused_with_those_that_are(value):
    with pytest.raises(ValueError, match=f"'model.quantizer.dtype' .*become '{value}', but one of float32, bfloat16"):
        override(Experiment(), {"model.quantizer.dtype": value})
    assert override(Experiment(), {"model.quantizer.dtype": "bfloat16"}).model.quantizer.dtype == "bfloat16"


@pytest.mark.parametrize(("name", "value"), [("num_groups", 0), ("seed", "x")])
def test_what_a_class_fails_with_is_an_error_that_names_path_and_value(name, value):
    with pytest.raises(ValueError, match=f"'model.quantizer.{name}' can't become {value!r} .*: .*(zero|supported)"):
        override(Experiment(), {f"model.quantizer.{name}": value})


def test_what_a_class_says_itself_is_left_as_it_is():
    with pytest.raises(ValueError, match=r"^3 codebooks can't share 8 dimensions$"):
        override(Experiment(), {"model.quantizer.num_groups": 3})


@pytest.mark.parametrize(
    ("text", "assignment"),
    [
        ("a.b=0.1", ("a.b", 0.1)),
        ("a = (1, 2)", ("a", (1, 2))),
        ("a=True", ("a", True)),
        ("name=base_960h", ("name", "base_960h")),
        ("url=a=b", ("url", "a=b")),
        ("name=", ("name", "")),
        ("name={[]: 1}", ("name", "{[]: 1}")),
    ],
)
def test_an_assignment_is_read_as_python_or_else_as_text(text, assignment):
    assert parse_assignment(text) == assignment


@pytest.mark.parametrize("text", ["a.b", "=3", ""])
def test_an_assignment_without_equals_or_path_is_refused(text):
    with pytest.raises(ValueError, match="write path=value"):
        parse_assignment(text)


def test_the_example_in_the_error_is_a_setting_that_there_is():
    with pytest.raises(ValueError) as raised:
        parse_assignment("nothing")
    path, value = parse_assignment(str(raised.value).split("e.g. ")[1])
    assert override(base_960h.experiment(), {path: value}).task.model.encoder.context_network.layer_drop == value
