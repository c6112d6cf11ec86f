"""The frequencies of rotary positions: others keep them as tensors, though they follow from the size of a head."""

import flax.linen as nn
import numpy as np

from w2v2_jax.conformer import ConformerLayer, RotaryAttention, rotary_frequencies


def rotations_of(model: nn.Module) -> tuple[np.ndarray, ...]:
    """The frequencies in each layer of a network with rotary positions; nothing for others."""
    encoder = model.encoder
    layer = encoder.context_network.layer
    if not isinstance(layer, ConformerLayer) or layer.attention is not RotaryAttention:
        return ()
    frequencies = rotary_frequencies(encoder.embed_dim // layer.num_heads)
    return (frequencies,) * encoder.context_network.num_layers
