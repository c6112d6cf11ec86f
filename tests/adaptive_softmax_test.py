import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from w2v2_jax.adaptive_softmax import AdaptiveWords

pytestmark = pytest.mark.usefixtures("quick_compilation")

DIM, WORDS, CUTOFFS = 32, 23, (5, 12)
MODULE = AdaptiveWords(WORDS, DIM, CUTOFFS, words_together=12)
RNG = np.random.default_rng(0)
CONTEXTS = jnp.array(RNG.normal(size=(3, 7, DIM)), jnp.float32)
TARGETS = jnp.array(RNG.integers(0, WORDS, (3, 7)))


def params_of(module):
    def init(key):
        return module.init(key, CONTEXTS, TARGETS, method="log_probs")["params"]

    shapes = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.array(0.5 * rng.normal(size=x.shape), jnp.float32), shapes)


PARAMS = params_of(MODULE)


def log_probs(module, params, contexts, words):
    return module.apply({"params": params}, contexts, words, method="log_probs")


@pytest.mark.parametrize("cutoffs", [(), (9,), CUTOFFS])
def test_the_probabilities_of_all_words_add_up_to_1(cutoffs):
    module = AdaptiveWords(WORDS, DIM, cutoffs)
    contexts = jnp.repeat(CONTEXTS[:, :1], WORDS, axis=1)
    found = log_probs(module, params_of(module), contexts, jnp.tile(jnp.arange(WORDS), (3, 1)))
    np.testing.assert_allclose(jnp.exp(found).sum(axis=1), 1, rtol=1e-5)


def torch_softmax():
    """PyTorch's, with the same weights."""
    softmax = torch.nn.AdaptiveLogSoftmaxWithLoss(DIM, WORDS, list(CUTOFFS), div_value=4.0)
    heads = np.concatenate([PARAMS["table_0"], [PARAMS["class_1"], PARAMS["class_2"]]])
    weights = {"head.weight": heads}
    for tail in (0, 1):
        weights[f"tail.{tail}.0.weight"] = np.asarray(PARAMS[f"down_{tail + 1}"]).T
        weights[f"tail.{tail}.1.weight"] = PARAMS[f"table_{tail + 1}"]
    softmax.load_state_dict({name: torch.tensor(np.array(weight)) for name, weight in weights.items()})
    return softmax


def test_log_probabilities_and_gradients_are_those_of_pytorch():
    softmax = torch_softmax()
    contexts = torch.tensor(np.array(CONTEXTS).reshape(-1, DIM), requires_grad=True)
    expected = softmax(contexts, torch.tensor(np.array(TARGETS).ravel())).output
    expected.sum().backward()

    def total(params, contexts):
        found = log_probs(MODULE, params, contexts, TARGETS)
        return found.sum(), found

    (params, given), found = jax.grad(total, argnums=(0, 1), has_aux=True)(PARAMS, CONTEXTS)
    np.testing.assert_allclose(found.ravel(), expected.detach(), atol=1e-4)
    np.testing.assert_allclose(given.reshape(-1, DIM), contexts.grad, atol=1e-4)
    np.testing.assert_allclose(params["table_2"], softmax.tail[1][1].weight.grad, atol=1e-4)
    np.testing.assert_allclose(params["down_1"].T, softmax.tail[0][0].weight.grad, atol=1e-4)
    np.testing.assert_allclose(params["class_1"], softmax.head.weight.grad[5], atol=1e-4)


@pytest.mark.parametrize("words_together", [1, 21, 50])
def test_how_many_words_are_looked_at_together_changes_nothing(words_together):
    other = AdaptiveWords(WORDS, DIM, CUTOFFS, words_together=words_together)
    expected = log_probs(MODULE, PARAMS, CONTEXTS, TARGETS)
    np.testing.assert_allclose(log_probs(other, PARAMS, CONTEXTS, TARGETS), expected, atol=1e-5)


def test_a_word_is_embedded_by_its_row_of_its_bands_table():
    words = jnp.array([[0, 4, 5, 11, 12, 22]])
    found = MODULE.apply({"params": PARAMS}, words, "float32", method="embed")[0]
    rows = ((0, 0), (0, 4), (1, 0), (1, 6), (2, 0), (2, 10))
    for vector, (band, row) in zip(found, rows, strict=True):
        np.testing.assert_allclose(vector, PARAMS[f"table_{band}"][row] @ PARAMS[f"up_{band}"], atol=1e-5)


def test_gradients_reach_the_tables_from_the_input_too():
    def total(params):
        return MODULE.apply({"params": params}, TARGETS, "float32", method="embed").sum()

    gradients = jax.grad(total)(PARAMS)
    used = sorted(set(TARGETS.ravel().tolist()) & set(range(5)))
    np.testing.assert_array_equal(np.flatnonzero(np.abs(gradients["table_0"]).sum(axis=1)), used)


@pytest.mark.parametrize("cutoffs", [(0,), (5, 5), (12, 5), (WORDS,)])
def test_cutoffs_that_leave_a_band_empty_are_an_error(cutoffs):
    with pytest.raises(ValueError, match=r"don't cut 23 words into bands; give rising numbers between 0 and 23"):
        AdaptiveWords(WORDS, DIM, cutoffs)


def test_a_width_that_bands_cannot_divide_is_an_error():
    with pytest.raises(ValueError, match=r"dim=24 can't be divided by factor=4 .* make it a multiple of 16"):
        AdaptiveWords(WORDS, 24, CUTOFFS)
