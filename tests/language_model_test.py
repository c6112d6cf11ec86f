import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from w2v2_jax.adaptive_softmax import AdaptiveWords
from w2v2_jax.context_network import ContextNetwork
from w2v2_jax.language_model import CausalLayer, LanguageModel, SinusoidalPositions, librispeech, tiny
from w2v2_jax.layers import Identity, LayerNorm
from w2v2_jax.overrides import override

pytestmark = pytest.mark.usefixtures("quick_compilation")

DIM, HEADS, FFN, LAYERS, WORDS = 16, 4, 24, 2, 30
NETWORK = ContextNetwork(
    LAYERS, CausalLayer(HEADS, FFN), Identity, LayerNorm, SinusoidalPositions(), dropout=0.1, layer_drop=0.0
)
MODEL = LanguageModel(AdaptiveWords(WORDS, DIM, (10,)), NETWORK)
SENTENCES = jnp.array(np.random.default_rng(0).integers(1, WORDS, (3, 9)))


def random_params():
    shapes = nn.unbox(jax.eval_shape(MODEL.init, jax.random.key(0), SENTENCES)["params"])
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.array(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


PARAMS = random_params()


@jax.jit
def log_probs(words, **rngs):
    return MODEL.apply({"params": PARAMS}, words, rngs=rngs)


def test_a_word_depends_on_those_before_it_alone():
    changed = log_probs(SENTENCES.at[:, 5].set(0)) - log_probs(SENTENCES)
    assert not changed[:, :5].any()
    assert changed[:, 6:].all()


def test_what_follows_a_sentence_in_its_row_changes_nothing():
    alone = log_probs(SENTENCES[:1, :6])
    np.testing.assert_allclose(log_probs(SENTENCES)[:1, :6], alone, atol=1e-5)


def test_the_probabilities_of_all_next_words_add_up_to_1():
    rows = jnp.repeat(SENTENCES[:1, :5], WORDS, axis=0).at[:, 4].set(jnp.arange(WORDS))
    assert jnp.exp(log_probs(rows)[:, 4]).sum() == pytest.approx(1, abs=1e-5)


def test_dropout_acts_where_a_key_is_given():
    assert (log_probs(SENTENCES, dropout=jax.random.key(0)) != log_probs(SENTENCES)).all()


def torch_network():
    """PyTorch's own Transformer with the same weights."""
    layer = torch.nn.TransformerEncoderLayer(DIM, HEADS, FFN, 0.0, norm_first=True, batch_first=True)
    network = torch.nn.TransformerEncoder(layer, LAYERS, torch.nn.LayerNorm(DIM), enable_nested_tensor=False)
    ours = PARAMS["network"]
    for number, layer in enumerate(network.layers):
        here = jax.tree.map(lambda x, number=number: np.asarray(x)[number], ours["layer"])
        attention, feed_forward = here["attention"], here["feed_forward"]
        qkv = [attention[name] for name in ("query", "key", "value")]
        weights = {
            "self_attn.in_proj_weight": np.concatenate([each["kernel"].reshape(DIM, DIM).T for each in qkv]),
            "self_attn.in_proj_bias": np.concatenate([each["bias"].ravel() for each in qkv]),
            "self_attn.out_proj.weight": attention["out"]["kernel"].reshape(DIM, DIM).T,
            "self_attn.out_proj.bias": attention["out"]["bias"],
            "linear1.weight": feed_forward["up"]["kernel"].T,
            "linear1.bias": feed_forward["up"]["bias"],
            "linear2.weight": feed_forward["down"]["kernel"].T,
            "linear2.bias": feed_forward["down"]["bias"],
            "norm1.weight": here["norm"]["scale"],
            "norm1.bias": here["norm"]["bias"],
            "norm2.weight": here["output_norm"]["scale"],
            "norm2.bias": here["output_norm"]["bias"],
        }
        layer.load_state_dict({name: torch.tensor(np.array(weight)) for name, weight in weights.items()})
    last = {"weight": ours["last_norm"]["scale"], "bias": ours["last_norm"]["bias"]}
    network.norm.load_state_dict({name: torch.tensor(np.array(value)) for name, value in last.items()})
    return network.eval()


def test_the_network_is_pytorchs_causal_transformer():
    x = np.random.default_rng(1).normal(size=(3, 9, DIM)).astype(np.float32)
    valid = jnp.ones((3, 9), bool)
    ours = NETWORK.apply({"params": PARAMS["network"]}, jnp.array(x), valid).context
    places = np.asarray(SinusoidalPositions().apply({}, jnp.zeros((3, 9, DIM))))
    future = torch.nn.Transformer.generate_square_subsequent_mask(9)
    with torch.no_grad():
        theirs = torch_network()(torch.tensor(x + places), mask=future)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_positions_are_sines_then_cosines_of_rates_from_1_to_a_ten_thousandth():
    found = SinusoidalPositions().apply({}, jnp.zeros((1, 5, 8)))[0]
    for place in range(5):
        angles = place * 10_000.0 ** -(np.arange(4) / 3)
        np.testing.assert_allclose(found[place], [*np.sin(angles), *np.cos(angles)], atol=1e-6)


def num_params(model):
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), SENTENCES))
    return sum(x.size for x in jax.tree.leaves(shapes))


def test_the_papers_model_has_562_million_parameters():
    """20 layers of 4 x 1280 x 1280 in attention and 2 x 1280 x 6144 behind it, with biases and norms; three tables."""
    attention, feed_forward, norms = 4 * (1280 + 1) * 1280, 2 * 1280 * 6144 + 6144 + 1280, 4 * 1280
    tables = 60_000 * 1280 + 100_000 * 320 + 60_000 * 80
    maps = (1280 + 2 * 320 + 2 * 80) * 1280 + 2 * 1280
    expected = 20 * (attention + feed_forward + norms) + 2 * 1280 + tables + maps
    assert num_params(librispeech()) == expected == 562_265_600


def test_a_new_model_finds_all_words_about_equally_likely():
    model = override(tiny(num_words=50), {"network.num_layers": 1})
    variables = model.init(jax.random.key(0), SENTENCES)
    loss = -model.apply(variables, SENTENCES).mean()
    assert np.log(50) - 0.1 < loss < np.log(50) + 1


def test_heads_that_cannot_share_the_width_are_an_error():
    network = ContextNetwork(1, CausalLayer(3, FFN), Identity, LayerNorm, SinusoidalPositions())
    with pytest.raises(ValueError, match="3 heads can't share 16 dimensions"):
        LanguageModel(AdaptiveWords(WORDS, DIM), network).init(jax.random.key(0), SENTENCES)
