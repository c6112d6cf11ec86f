import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.losses import (
    am_softmax_loss,
    contrastive_loss,
    cross_entropy,
    diversity_loss,
    feature_penalty,
    mean_probs,
    perplexity,
    unit,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLIPS, TARGETS, DIM, DISTRACTORS = 2, 7, 5, 4


def random_case(seed=0, entries=50):
    rng = np.random.default_rng(seed)
    context, quantized = rng.normal(size=(2, CLIPS, TARGETS, DIM)).astype(np.float32)
    codes = rng.integers(0, entries, (CLIPS, TARGETS, 2))
    distractors = (np.arange(TARGETS)[:, None] + rng.integers(1, TARGETS, (CLIPS, TARGETS, DISTRACTORS))) % TARGETS
    return tuple(jnp.array(x) for x in (context, quantized, codes, distractors))


def by_the_book(context, quantized, codes, distractors, temperature):
    """Equation 3, frame by frame in float64."""
    losses, correct = np.zeros((2, CLIPS, TARGETS))
    context, quantized, codes = np.float64(context), np.float64(quantized), np.array(codes)
    for b, t in np.ndindex(CLIPS, TARGETS):
        others = [s for s in np.array(distractors)[b, t] if (codes[b, s] != codes[b, t]).any()]
        candidates = quantized[b, [t, *others]]
        lengths = np.linalg.norm(candidates, axis=1) * np.linalg.norm(context[b, t])
        scores = candidates @ context[b, t] / lengths / temperature
        losses[b, t] = np.log(np.exp(scores).sum()) - scores[0]
        correct[b, t] = scores[0] == scores.max()
    return losses, correct


@pytest.mark.parametrize("entries", [50, 2])
def test_contrastive_loss_is_equation_3_over_distractors_of_other_codes(entries):
    case = random_case(entries=entries)
    losses, correct = by_the_book(*case, 0.1)
    result = contrastive_loss(*case, 0.1)
    np.testing.assert_allclose(result.loss, losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result.correct, correct)


def test_loss_is_ln_of_the_candidates_and_nothing_is_correct_if_all_look_alike():
    """The signature of a dead network: 4.615 nats, 6.658 bits, with 100 distractors."""
    _, quantized, codes, _ = random_case()
    distractors = jnp.ones((CLIPS, TARGETS, 100), jnp.int32) * ((jnp.arange(TARGETS) + 1) % TARGETS)[None, :, None]
    result = contrastive_loss(jnp.zeros_like(quantized), quantized, codes, distractors, 0.1)
    np.testing.assert_allclose(result.loss, np.log(101), rtol=1e-6)
    assert np.log(101) / np.log(2) == pytest.approx(6.658, abs=1e-3)
    assert not result.correct.any()


def test_loss_is_ln_of_the_candidates_if_all_targets_project_to_one_vector():
    context, quantized, _, distractors = random_case()
    codes = jnp.broadcast_to(jnp.arange(TARGETS)[None, :, None], (CLIPS, TARGETS, 2))
    same = jnp.broadcast_to(quantized[:1, :1], quantized.shape)
    np.testing.assert_allclose(contrastive_loss(context, same, codes, distractors, 0.1).loss, np.log(5), rtol=1e-5)


def test_a_collapsed_codebook_gives_loss_0_and_accuracy_1_and_finite_gradients():
    """Every distractor has the target's codes and is left out."""
    context, quantized, codes, distractors = random_case()

    def mean(context, quantized):
        result = contrastive_loss(context, quantized, jnp.zeros_like(codes), distractors, 0.1)
        return result.loss.mean(), result

    (loss, result), gradients = jax.value_and_grad(mean, argnums=(0, 1), has_aux=True)(context, quantized)
    assert loss == 0
    assert result.correct.all()
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_loss_is_0_when_targets_stand_out():
    _, _, codes, distractors = random_case()
    vectors = jnp.broadcast_to(jnp.eye(TARGETS), (CLIPS, TARGETS, TARGETS))
    result = contrastive_loss(vectors, vectors, codes, distractors, 0.01)
    np.testing.assert_allclose(result.loss, 0, atol=1e-6)
    assert result.correct.all()


def test_loss_does_not_depend_on_the_lengths_of_the_vectors():
    context, quantized, codes, distractors = random_case()
    scaled = contrastive_loss(3 * context, 0.2 * quantized, codes, distractors, 0.1)
    np.testing.assert_allclose(scaled.loss, contrastive_loss(*random_case(), 0.1).loss, rtol=1e-4, atol=1e-5)


def array_sizes(jaxpr):
    """The sizes of all arrays that a program makes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        inner = (getattr(value, "jaxpr", value) for value in jax.tree.leaves(equation.params))
        yield from (size for program in inner if hasattr(program, "eqns") for size in array_sizes(program))


def test_no_vector_of_a_distractor_is_copied():
    """Not even in the backward pass: no array has targets x distractors x dimensions entries."""
    targets, distractors, dim = 60, 100, 64
    shapes = [(1, targets, dim), (1, targets, dim), (1, targets, 2), (1, targets, distractors)]
    arrays = [jnp.zeros(shape, dtype) for shape, dtype in zip(shapes, "ffii", strict=True)]
    program = jax.make_jaxpr(
        jax.grad(lambda c, q, *rest: contrastive_loss(c, q, *rest, 0.1).loss.sum(), argnums=(0, 1))
    )(*arrays)
    assert max(array_sizes(program.jaxpr)) < 4 * targets * (distractors + 1) < targets * distractors * dim


def test_unit_vectors_have_length_1_in_float32_and_zero_stays_with_a_finite_gradient():
    vectors = unit(jnp.array([[3.0, 4.0], [0.0, 0.0]], jnp.bfloat16))
    assert vectors.dtype == jnp.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert jnp.isfinite(jax.jacobian(unit)(jnp.zeros(3))).all()


@pytest.mark.parametrize(("groups", "entries"), [(2, 320), (4, 18), (1, 2)])
def test_perplexity_counts_the_entries_in_use_over_all_groups(groups, entries):
    assert perplexity(jnp.full((groups, entries), 1 / entries)) == pytest.approx(groups * entries, rel=1e-3)
    assert perplexity(jax.nn.one_hot(jnp.zeros(groups, int), entries)) == pytest.approx(groups, rel=1e-5)


@pytest.mark.parametrize("entries", [2, 320])
def test_diversity_loss_is_0_for_equally_likely_entries_and_nearly_1_for_one(entries):
    assert diversity_loss(jnp.full((2, entries), 1 / entries)) == pytest.approx(0, abs=1e-3)
    assert diversity_loss(jax.nn.one_hot(jnp.zeros(2, int), entries)) == pytest.approx(1 - 1 / entries, rel=1e-5)


def test_mean_probs_are_over_frames_with_weight_and_zero_without_any():
    probs = jnp.array([[[[0.2, 0.8]], [[0.6, 0.4]]], [[[1.0, 0.0]], [[0.0, 1.0]]]])
    np.testing.assert_allclose(mean_probs(probs, jnp.array([[1.0, 0.0], [1.0, 0.0]])), [[0.6, 0.4]], rtol=1e-6)
    np.testing.assert_array_equal(mean_probs(probs, jnp.zeros((2, 2))), [[0, 0]])


def test_feature_penalty_is_the_mean_square_of_valid_frames_and_ignores_nan_in_padding():
    latents = jnp.array([[[1.0, 3.0], [2.0, 2.0]], [[4.0, 0.0], [jnp.nan, 7.0]]])
    valid = jnp.array([[True, True], [True, False]])
    assert feature_penalty(latents, valid) == pytest.approx((1 + 9 + 4 + 4 + 16 + 0) / 6)
    assert feature_penalty(latents, jnp.zeros((2, 2), bool)) == 0


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_cross_entropy_is_the_negative_logarithm_of_the_softmax_at_the_label_of_each_row(shape):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(*shape, 4)).astype(np.float32), rng.integers(0, 4, shape)
    losses = cross_entropy(jnp.array(logits), jnp.array(labels))
    assert losses.shape == shape
    for row in np.ndindex(shape):
        probs = np.exp(np.float64(logits[row])) / np.exp(np.float64(logits[row])).sum()
        np.testing.assert_allclose(losses[row], -np.log(probs[labels[row]]), rtol=1e-5)


def test_cross_entropy_is_ln_of_the_classes_if_all_look_alike_and_large_logits_do_not_overflow():
    np.testing.assert_allclose(cross_entropy(jnp.full((1, 8), 1e4), jnp.array([3])), [np.log(8)], atol=1e-3)
    np.testing.assert_allclose(cross_entropy(1e4 * jnp.eye(2), jnp.array([0, 0])), [0, 1e4], rtol=1e-6)


def test_am_softmax_takes_the_margin_from_the_true_class_alone_and_scales_all():
    """cos = (0.9, 0.5, 0.1), s = 10, m = 0.3: exponents 6, 5, 1 where the first is true, 9, 2, 1 for the second."""
    similarities = jnp.array([[0.9, 0.5, 0.1]] * 2)
    expected = [np.log(1 + np.exp(-1) + np.exp(-5)), np.log(np.exp(7) + 1 + np.exp(-1))]
    losses = am_softmax_loss(similarities, jnp.array([0, 1]), scale=10.0, margin=0.3)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_am_softmax_without_a_margin_is_cross_entropy():
    similarities = jnp.array(np.random.default_rng(0).uniform(-1, 1, (3, 5)), jnp.float32)
    labels = jnp.array([4, 0, 2])
    plain = am_softmax_loss(similarities, labels, scale=1.0, margin=0.0)
    np.testing.assert_array_equal(plain, cross_entropy(similarities, labels))
