"""The README.md of a folder for transformers."""

from w2v2_jax.convert.card import Card
from w2v2_jax.convert.huggingface_config import config_of
from w2v2_jax.model import CTCModel


def model_card(card: Card) -> str:
    """What the network is and how it is loaded; no word of what nobody has measured."""
    [architecture] = config_of(card)["architectures"]
    expects = "zero mean and unit variance" if card.normalise else "samples as they are, in [-1, 1]"
    facts = [
        f"- architecture: `{architecture}`",
        f"- audio: 16 kHz, mono, {expects}",
        *([f"- labels: {len(card.vocabulary)}, blank `{card.vocabulary.blank}`"] if _writes(card) else []),
        *([f"- language of the adapters: {card.language}"] if card.language else []),
        *([f"- classes: {', '.join(card.classes)}"] if card.classes else []),
    ]
    return (
        "---\nlibrary_name: transformers\ntags:\n- speech\n- wav2vec2\n---\n\n"
        "# wav2vec 2.0\n\n"
        "wav2vec 2.0 ([Baevski et al., 2020](https://arxiv.org/abs/2006.11477)), written by w2v2_jax.\n\n"
        + "\n".join(facts)
        + f"\n\n```python\nfrom transformers import {architecture}\n\n"
        f'model = {architecture}.from_pretrained("path/of/this/folder")\n```\n\n'
    )


def _writes(card: Card) -> bool:
    return isinstance(card.model, CTCModel)
