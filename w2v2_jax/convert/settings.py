"""One network's settings under different names: what the formats have in common."""

from collections.abc import Mapping
from typing import Any

from w2v2_jax.conformer import CarriedPositionalConv, ConformerLayer
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer, PreNormLayer
from w2v2_jax.convert.card import FormatError
from w2v2_jax.feature_encoder import GroupNormConv, LayerNormConv, PlainConv
from w2v2_jax.layers import Identity, LayerNorm

Settings = dict[str, Any]

GROUP_NORM = (GroupNormConv, PlainConv)
"""The blocks of a feature encoder, the first and the others, as BASE has them."""
LAYER_NORM = (LayerNormConv, LayerNormConv)


def ours(table: Mapping[str, str], settings: Mapping[str, Any]) -> Settings:
    """Settings by our names, from those by theirs."""
    return {our: settings[their] for our, their in table.items()}


def theirs(table: Mapping[str, str], module: Any) -> Settings:
    """The settings of a module, by their names."""
    return {their: getattr(module, our) for our, their in table.items()}


def key_of(table: Mapping[Any, Any], wanted: Any, format_name: str) -> Any:
    """What a format calls something.

    Raises:
        FormatError: where it has nothing of the kind.
    """
    for key, each in table.items():
        if each == wanted:
            return key
    raise FormatError(f"{format_name} has nothing like {wanted}; it has {', '.join(map(repr, table))}")


def expect(what: str, settings: Mapping[str, Any], accepted: Mapping[str, tuple]) -> None:
    """Raises `FormatError` for the first setting that is none of those accepted."""
    for name, values in accepted.items():
        if settings[name] not in values:
            raise FormatError(
                f"{what} has {name}={settings[name]!r}, which no published wav2vec 2.0 has; "
                f"accepted: {' or '.join(map(repr, values))}"
            )


def check_kinds(what: str, settings: Mapping[str, Any], examples: Mapping[str, Any]) -> None:
    """Raises `FormatError` for the first setting that is of another kind than its example; None is an example of all.

    Without it `null` or a text for a number would come to light as an error of arithmetic.
    """
    for name, example in examples.items():
        if example is not None and not isinstance(settings[name], _KINDS[type(example)]):
            raise FormatError(f"{what} has {name}={settings[name]!r}, which should be something like {example!r}")


_KINDS = {bool: bool, int: int, float: int | float, str: str | None, list: list | tuple}


def post_norm(layer: Settings, position: Settings, network: Settings) -> ContextNetwork:
    """A context network with norms after the sums, as BASE has it."""
    return ContextNetwork(layer=PostNormLayer(**layer), position=PositionalConv(**position), **network)


def pre_norm(layer: PreNormLayer, position: Settings, network: Settings) -> ContextNetwork:
    """A context network with norms at the head of each branch, as LARGE LV-60k has it."""
    made = PositionalConv(**position)
    return ContextNetwork(layer=layer, position=made, first_norm=Identity, last_norm=LayerNorm, **network)


def conformer(
    layer: ConformerLayer,
    position: Settings,
    network: Settings,
    convolution: type[PositionalConv] = CarriedPositionalConv,
) -> ContextNetwork:
    """A context network of conformer layers."""
    made = convolution(**position)
    return ContextNetwork(layer=layer, position=made, first_norm=Identity, last_norm=LayerNorm, **network)


def is_conformer(model: Any) -> bool:
    """Whether a model's layers are those of a conformer."""
    return isinstance(model.encoder.context_network.layer, ConformerLayer)
