import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from w2v2_jax.ctc import ctc_loss


def random_case(seed, batch=4, frames=12, symbols=5, positions=6):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, frames, symbols)).astype(np.float32) * 2
    labels = rng.integers(1, symbols, size=(batch, positions))
    num_frames = np.array([frames, frames - 2, frames, frames - 1])
    num_labels = np.array([positions, 3, 1, 0])
    return jnp.array(logits), jnp.array(num_frames), jnp.array(labels), jnp.array(num_labels)


def torch_ctc(logits, num_frames, labels, num_labels):
    """Losses and gradients in float64."""
    x = torch.tensor(np.float64(logits), requires_grad=True)
    losses = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(np.asarray(labels)),
        torch.tensor(np.asarray(num_frames)),
        torch.tensor(np.asarray(num_labels)),
        reduction="none",
        zero_infinity=True,
    )
    losses.sum().backward()
    return losses.detach().numpy(), x.grad.numpy()


@jax.jit
def total_loss(logits, *rest):
    return ctc_loss(logits, *rest).losses.sum()


loss = jax.jit(ctc_loss)
gradient = jax.jit(jax.grad(total_loss))
value_and_gradient = jax.jit(jax.value_and_grad(total_loss))


def probability_by_enumeration(logits, labels):
    """Sum over all paths whose collapse is `labels`, in float64."""
    probs = np.exp(np.float64(logits))
    probs /= probs.sum(-1, keepdims=True)
    frames, symbols = probs.shape
    total = 0.0
    for path in itertools.product(range(symbols), repeat=frames):
        if [symbol for symbol, _ in itertools.groupby(path) if symbol != 0] == list(labels):
            total += np.prod(probs[np.arange(frames), path])
    return total


@pytest.mark.parametrize("labels", [[], [1], [1, 2], [1, 1], [2, 2, 1]])
def test_loss_is_minus_the_log_of_the_sum_over_all_paths(labels):
    logits = np.random.default_rng(len(labels)).normal(size=(5, 3)).astype(np.float32)
    padded = jnp.array([labels + [0] * (3 - len(labels))])
    result = loss(jnp.array(logits)[None], jnp.array([5]), padded, jnp.array([len(labels)]))
    assert result.losses[0] == pytest.approx(-np.log(probability_by_enumeration(logits, labels)), rel=1e-5)
    assert bool(result.feasible[0])


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_equal_torch(seed):
    case = random_case(seed)
    losses, gradients = torch_ctc(*case)
    np.testing.assert_allclose(loss(*case).losses, losses, rtol=1e-5)
    np.testing.assert_allclose(gradient(*case), gradients, atol=1e-5)


def test_gradient_equals_finite_differences():
    logits, *rest = random_case(7)
    direction = jnp.array(np.random.default_rng(0).normal(size=logits.shape).astype(np.float32))
    ahead, behind = (total_loss(logits + step * direction, *rest) for step in (1e-2, -1e-2))
    slope = float(ahead - behind) / 2e-2
    assert float(jnp.sum(gradient(logits, *rest) * direction)) == pytest.approx(slope, rel=1e-2)


def test_infeasible_rows_have_zero_loss_and_gradient_like_torch_with_zero_infinity():
    logits, _, _, _ = random_case(1, frames=4)
    labels = jnp.array([[1, 2, 3, 4, 1], [1, 1, 1, 0, 0], [1, 1, 2, 0, 0], [2, 3, 1, 4, 0]])
    case = logits, jnp.array([4, 4, 4, 4]), labels, jnp.array([5, 3, 3, 4])
    losses, gradients = torch_ctc(*case)
    result = loss(*case)
    assert result.feasible.tolist() == [False, False, True, True]
    assert result.losses[:2].tolist() == [0, 0]
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
    ours = gradient(*case)
    assert not np.any(ours[:2])
    np.testing.assert_allclose(ours, gradients, atol=1e-5)


def test_a_row_is_feasible_from_as_many_frames_as_labels_and_repeats():
    labels = jnp.tile(jnp.array([[3, 3, 1]]), (3, 1))
    result = loss(jnp.zeros((3, 5, 4)), jnp.array([3, 4, 5]), labels, jnp.array([3, 3, 3]))
    assert result.feasible.tolist() == [False, True, True]


def test_a_filler_row_counts_nowhere():
    logits = jnp.full((1, 3, 4), jnp.nan)
    case = logits, jnp.array([0]), jnp.array([[0, 0]]), jnp.array([0])
    result = loss(*case)
    assert (result.losses.tolist(), result.feasible.tolist()) == ([0], [False])
    assert not np.any(gradient(*case))


def test_an_empty_transcript_costs_the_blanks_of_all_frames():
    result = loss(jnp.zeros((1, 6, 4)), jnp.array([6]), jnp.array([[0, 0]]), jnp.array([0]))
    assert result.losses[0] == pytest.approx(6 * np.log(4))


def test_nan_in_padding_and_in_infeasible_rows_does_not_leak():
    logits, num_frames, labels, num_labels = random_case(3)
    num_frames = num_frames.at[0].set(2)
    clean = value_and_gradient(logits, num_frames, labels, num_labels)
    valid = (jnp.arange(12)[None] < num_frames[:, None]) & (jnp.arange(4) != 0)[:, None]
    dirty = jnp.where(valid[..., None], logits, jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, value_and_gradient(dirty, num_frames, labels, num_labels), clean)


def test_labels_beyond_num_labels_do_not_count():
    logits, num_frames, labels, num_labels = random_case(4)
    beyond = jnp.arange(labels.shape[1])[None] >= num_labels[:, None]
    rest = num_labels
    expected = loss(logits, num_frames, jnp.where(beyond, 0, labels), rest)
    for junk in (-1, 1, 99):
        result = loss(logits, num_frames, jnp.where(beyond, junk, labels), rest)
        jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_padding_a_batch_further_changes_nothing():
    logits, num_frames, labels, num_labels = random_case(5)
    wide = jnp.pad(logits, ((0, 0), (0, 9), (0, 0)), constant_values=3.0), num_frames
    wide += jnp.pad(labels, ((0, 0), (0, 4))), num_labels
    np.testing.assert_allclose(loss(*wide).losses, loss(logits, num_frames, labels, num_labels).losses, rtol=1e-6)


def test_near_certain_loss_is_never_negative():
    rng = np.random.default_rng(0)
    path = rng.integers(0, 32, size=(16, 200))
    labels = [[symbol for symbol, _ in itertools.groupby(row) if symbol != 0] for row in path]
    num_labels = np.array([len(row) for row in labels])
    padded = np.array([row + [0] * (200 - len(row)) for row in labels])
    for confidence in (8.0, 20.0, 40.0):
        logits = confidence * jax.nn.one_hot(path, 32)
        result = loss(logits, jnp.full(16, 200), jnp.array(padded), jnp.array(num_labels))
        assert np.all(result.feasible)
        assert np.all(result.losses >= 0)


def test_bfloat16_logits_are_scored_in_float32():
    logits, *rest = random_case(6)
    half = logits.astype(jnp.bfloat16)
    result = loss(half, *rest)
    assert result.losses.dtype == jnp.float32
    np.testing.assert_array_equal(result.losses, ctc_loss(half.astype(jnp.float32), *rest).losses)


def test_every_product_of_the_loss_and_its_gradient_is_of_highest_precision():
    program = str(jax.make_jaxpr(jax.grad(total_loss))(*random_case(0)))
    assert program.count("dot_general[") > 0
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == program.count("dot_general[")
