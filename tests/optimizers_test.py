import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from w2v2_jax.optimizers import PolynomialDecay, TriStage, adam, freeze


def gradients(num_updates, seed=0):
    """Gradients of very different sizes, so that eps matters for some and not for others."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_updates, 4)).astype(np.float32) * np.float32([1, 1e-3, 1e-6, 1e-8])


def by_formula(p, grads, rates, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01):
    """The parameters after each update, from the formula in float64."""
    p, m, v, after = p.astype(np.float64), 0.0, 0.0, []
    for t, (g, lr) in enumerate(zip(grads.astype(np.float64), rates, strict=True), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p = p - lr * weight_decay * p
        p = p - lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
        after.append(p)
    return np.array(after)


def run(optimizer, params, grads):
    """The parameters after each update."""
    update = jax.jit(optimizer.update)
    state, after = optimizer.init(params), []
    for g in grads:
        updates, state = update(jax.tree.map(lambda p, g=g: jnp.asarray(g, p.dtype), params), state, params)
        params = optax.apply_updates(params, updates)
        after.append(params)
    return after, state


@pytest.mark.parametrize("settings", [{}, {"eps": 1e-8, "weight_decay": 0.0}, {"b1": 0.0, "b2": 0.5}])
def test_adam_follows_the_formula(settings):
    p, grads = np.float32([1, -2, 3, 0.5]), gradients(20)
    rates = [0.02 * (n + 1) / 20 for n in range(20)]
    after, _ = run(adam(lambda n: 0.02 * (n + 1) / 20, **settings), {"p": jnp.asarray(p)}, grads)
    np.testing.assert_allclose([a["p"] for a in after], by_formula(p, grads, rates, **settings), rtol=1e-5)


def test_adam_equals_adamw_of_torch_where_eps_is_negligible():
    p, grads = np.float32([1, -2, 3, 0.5]), gradients(10)[:, :2].repeat(2, axis=1)
    theirs = torch.nn.Parameter(torch.tensor(p))
    optimizer = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), eps=1e-12, weight_decay=0.01)
    for g in grads:
        theirs.grad = torch.tensor(g)
        optimizer.step()
    after, _ = run(adam(lambda n: 0.01, eps=1e-12), {"p": jnp.asarray(p)}, grads)
    # Torch decays by (1 - lr * decay) first, which is the same sum.
    np.testing.assert_allclose(after[-1]["p"], theirs.detach(), rtol=1e-5)


def test_adam_keeps_its_moments_in_float32_for_bfloat16_parameters():
    state = adam(lambda n: 0.1).init({"p": jnp.ones(3, jnp.bfloat16)})
    assert {x.dtype for x in jax.tree.leaves(state) if x.ndim} == {jnp.dtype("float32")}


def test_weight_decay_does_not_move_what_stands_below_statistics():
    """Also where a part is frozen for a while; a name of which it is a part decays like any other."""
    params = {"norm": {"statistics": {"mean": jnp.ones(4)}, "scale": jnp.ones(4)}, "statistics_scale": jnp.ones(4)}
    for optimizer in (adam(rate, weight_decay=0.5), freeze(adam(rate, weight_decay=0.5), {"norm": 1})):
        after, _ = run(optimizer, params, np.zeros((2, 4)))
        np.testing.assert_array_equal(after[-1]["norm"]["statistics"]["mean"], jnp.ones(4))
        assert (after[-1]["norm"]["scale"] < 1).all()
        assert (after[-1]["statistics_scale"] < 1).all()


@pytest.mark.parametrize("bad", [{"b1": 1.0}, {"b2": -0.1}, {"eps": 0.0}, {"weight_decay": -1.0}])
def test_adam_refuses_impossible_numbers(bad):
    with pytest.raises(ValueError, match="got"):
        adam(lambda n: 0.1, **bad)


def test_polynomial_decay_rises_from_zero_to_the_peak_and_falls_to_zero():
    lr = jax.jit(PolynomialDecay(5e-4, warmup_steps=32_000).over(400_000))
    expected = {0: 0, 1: 5e-4 / 32_000, 16_000: 2.5e-4, 32_000: 5e-4, 216_000: 2.5e-4, 400_000: 0, 500_000: 0}
    for n, rate in expected.items():
        assert lr(n) == pytest.approx(rate, rel=1e-5, abs=1e-12), n


def test_polynomial_decay_without_warm_up_starts_at_the_peak():
    assert PolynomialDecay(1.0, 0).over(10)(0) == 1
    assert PolynomialDecay(1.0, 0).over(10)(5) == pytest.approx(0.5)


def test_tri_stage_rises_holds_falls_exponentially_and_stays():
    lr = jax.jit(TriStage(3e-5).over(20_000))
    expected = {
        0: 3e-7,
        1000: (3e-7 + 3e-5) / 2,
        2000: 3e-5,
        9999: 3e-5,
        10_000: 3e-5,
        15_000: 3e-5 * math.sqrt(0.05),
        17_500: 3e-5 * 0.05**0.75,
        20_000: 1.5e-6,
        30_000: 1.5e-6,
    }
    for n, rate in expected.items():
        assert lr(n) == pytest.approx(rate, rel=1e-5), n


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolynomialDecay(0.0, 1).over(2), "positive"),
        (lambda: PolynomialDecay(math.nan, 1).over(2), "positive"),
        (lambda: PolynomialDecay(1.0, 2).over(2), "warm-up of 2 updates"),
        (lambda: PolynomialDecay(1.0, -1).over(2), "warm-up of -1 updates"),
        (lambda: TriStage(1.0, phase_ratio=(0.1, 0.4, 0.6)).over(10), "adding up to 1"),
        (lambda: TriStage(1.0, phase_ratio=(-0.1, 0.5, 0.6)).over(10), "adding up to 1"),
        (lambda: TriStage(1.0, final_scale=0.0).over(10), "final_scale"),
        (lambda: TriStage(1.0).over(0), "at least 1 update"),
    ],
)
def test_schedules_refuse_impossible_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


PARAMS = {
    "encoder": {"conv": {"kernel": jnp.float32([1, 2, 3, 4])}, "layer": {"kernel": jnp.float32([5, 6, 7, 8])}},
    "encoder_head": jnp.float32([1, -2, 3, 0.5]),
}


def rate(n):
    return 0.01 * (n + 1)


def test_freeze_holds_parameters_exactly_while_their_adam_sees_gradients_of_zero():
    """After the thaw t counts from the start of the run and the rate is the run's current one."""
    grads = gradients(8)
    settings = {"weight_decay": 0.0}
    after, _ = run(freeze(adam(rate, **settings), {"encoder": 3, "encoder.conv": math.inf}), PARAMS, grads)
    rates = [0.01 * (n + 1) for n in range(8)]
    layer, conv = PARAMS["encoder"]["layer"]["kernel"], PARAMS["encoder"]["conv"]["kernel"]
    for frozen in after[:3]:
        np.testing.assert_array_equal(frozen["encoder"]["layer"]["kernel"], layer)
    seen = np.where(np.arange(8)[:, None] < 3, 0, grads)
    layers = np.array([a["encoder"]["layer"]["kernel"] for a in after])
    np.testing.assert_allclose(layers, by_formula(np.asarray(layer), seen, rates, **settings), rtol=1e-5)
    np.testing.assert_array_equal(after[-1]["encoder"]["conv"]["kernel"], conv)
    trained = np.array([a["encoder_head"] for a in after])
    expected = by_formula(np.asarray(PARAMS["encoder_head"]), grads, rates, **settings)
    np.testing.assert_allclose(trained, expected, rtol=1e-5)


def test_weight_decay_does_not_move_frozen_parameters():
    after, _ = run(freeze(adam(rate, weight_decay=0.5), {"encoder": 3}), PARAMS, gradients(4))
    for frozen in after[:3]:
        jax.tree.map(np.testing.assert_array_equal, frozen["encoder"], PARAMS["encoder"])
    assert not np.array_equal(after[3]["encoder"]["layer"]["kernel"], PARAMS["encoder"]["layer"]["kernel"])


def test_parameters_frozen_for_ever_hold_no_optimizer_state():
    state = freeze(adam(rate), {"encoder": math.inf}).init(PARAMS)
    assert sum(x.size for x in jax.tree.leaves(state) if x.ndim) == 2 * PARAMS["encoder_head"].size


def test_freezing_nothing_changes_nothing():
    grads = gradients(3)
    plain, _ = run(adam(rate), PARAMS, grads)
    frozen, _ = run(freeze(adam(rate), {}), PARAMS, grads)
    jax.tree.map(np.testing.assert_array_equal, plain, frozen)


@pytest.mark.parametrize(("path", "nearest"), [("encodr", "encoder"), ("encoder.con", "encoder.conv")])
def test_freezing_a_path_without_parameters_names_the_nearest(path, nearest):
    with pytest.raises(ValueError, match=f"'{path}'; did you mean '{nearest}'"):
        freeze(adam(rate), {path: 3}).init(PARAMS)
