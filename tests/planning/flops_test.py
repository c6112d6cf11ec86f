import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from w2v2_jax.planning.flops import count_flops

X = jnp.ones((4, 8))
W = jnp.ones((8, 8))


def test_a_product_takes_two_operations_for_each_multiplication():
    assert count_flops(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 5))) == 2 * 2 * 3 * 5


def test_batched_products_are_counted_by_their_axes():
    assert count_flops(lambda a, b: jnp.einsum("bhtd,bhsd->bhts", a, b), *[jnp.ones((2, 3, 5, 7))] * 2) == (
        2 * (2 * 3) * 5 * 5 * 7
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_takes_a_product_for_each_place_of_its_kernel(groups):
    conv = nn.Conv(6, (3,), strides=2, padding="VALID", feature_group_count=groups)
    x = jnp.ones((2, 11, 4))
    params = jax.eval_shape(conv.init, jax.random.key(0), x)
    assert count_flops(conv.apply, params, x) == 2 * (2 * 5 * 6) * 3 * (4 // groups)


def test_nothing_but_products_counts():
    assert count_flops(lambda x: jax.nn.softmax(jnp.tanh(x) * 2 + x).sum(), X) == 0


def test_a_scan_counts_as_often_as_it_turns():
    assert count_flops(lambda x: jax.lax.scan(lambda x, _: (x @ W, None), x, length=5)[0], X) == 5 * 2 * 4 * 8 * 8


def test_of_branches_the_dearest_counts():
    branches = [lambda x: x, lambda x: x @ W, lambda x: x @ W @ W]
    assert count_flops(lambda x: jax.lax.switch(1, branches, x), X) == 2 * (2 * 4 * 8 * 8)


def test_of_ways_for_platforms_the_cheapest_counts():
    ways = {"tpu": lambda x: x @ W @ W, "default": lambda x: x @ W}
    assert count_flops(lambda x: jax.lax.platform_dependent(x, **ways), X) == 2 * 4 * 8 * 8


def test_what_is_computed_again_for_gradients_counts_once():
    assert count_flops(jax.jit(jax.checkpoint(lambda x: x @ W)), X) == 2 * 4 * 8 * 8


def test_a_kernel_counts_as_often_as_its_grid_has_places():
    def kernel(x, w, y):
        y[...] = jnp.dot(x[...], w[...])

    blocks = pl.BlockSpec((1, 8), lambda i: (i, 0))
    product = pl.pallas_call(
        kernel, X, grid=(4,), in_specs=[blocks, pl.BlockSpec((8, 8), lambda i: (0, 0))], out_specs=blocks
    )
    assert count_flops(product, X, W) == 2 * 4 * 8 * 8


def test_gradients_of_a_product_take_twice_as_much_again():
    def loss(x, w):
        return jnp.sum((x @ w) ** 2)

    assert count_flops(jax.grad(loss, argnums=(0, 1)), X, W) == 3 * count_flops(loss, X, W)
