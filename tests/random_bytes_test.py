import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from w2v2_jax.layers import drop
from w2v2_jax.random_bytes import random_bytes

SHAPE = (16, 256, 256)


def bytes_of(seed, shape=SHAPE):
    return np.asarray(random_bytes(jax.random.key(seed), shape))


def correlation(a, b):
    """In units of the chance deviation of two arrays that have nothing to do with each other."""
    a, b = (x.astype(np.float64).ravel() - 127.5 for x in (a, b))
    return (a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean()) * np.sqrt(a.size)


@pytest.mark.parametrize("seed", range(4))
def test_all_values_are_equally_frequent(seed):
    """Chi squared of 255 degrees of freedom: 255 in the mean, with a deviation of 22.6."""
    counts = np.bincount(bytes_of(seed).ravel(), minlength=256)
    expected = np.prod(SHAPE) / 256
    assert ((counts - expected) ** 2 / expected).sum() == pytest.approx(255, abs=5 * 22.6)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("distance", [1, 2, 8])
def test_neighbours_have_nothing_to_do_with_each_other(axis, distance):
    drawn = np.moveaxis(bytes_of(0), axis, 0)
    assert abs(correlation(drawn[distance:], drawn[:-distance])) < 5
    # Nor has what dropout makes of them.
    dropped = (drawn < 26).astype(np.float64)
    together = (dropped[distance:] * dropped[:-distance]).mean()
    assert together == pytest.approx((26 / 256) ** 2, abs=5 * 26 / 256 / np.sqrt(drawn.size))


def test_keys_that_are_close_give_bytes_that_are_not():
    drawn = [np.asarray(random_bytes(jax.random.key(seed), SHAPE)) for seed in range(4)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs(correlation(one, other)) < 5


def test_other_keys_give_other_numbers_not_the_same_ones_in_another_order():
    assert (np.bincount(bytes_of(0).ravel()) != np.bincount(bytes_of(1).ravel())).mean() > 0.9


def test_rows_differ():
    rows = bytes_of(0, (64, 512))
    assert len(np.unique(rows, axis=0)) == 64


def test_devices_that_share_an_array_make_the_bytes_of_one():
    sharding = NamedSharding(Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b")), PartitionSpec("a", None, "b"))
    draw = jax.jit(lambda rng: random_bytes(rng, SHAPE), out_shardings=sharding)
    np.testing.assert_array_equal(draw(jax.random.key(3)), bytes_of(3))


def test_a_device_makes_no_more_bytes_than_its_part_of_an_array_has():
    sharding = NamedSharding(Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b")), PartitionSpec("a", None, "b"))
    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=sharding)
    lowered = jax.jit(lambda x, rng: drop(x, rng, 0.1), out_shardings=sharding).lower(x, jax.random.key(0))
    program = lowered.compile().as_text()
    assert "[4,256,128]" in program and "[16,256,256]" not in program


def test_an_empty_array_has_none():
    assert random_bytes(jax.random.key(0), (0, 3)).shape == (0, 3)
    assert random_bytes(jax.random.key(0), ()).dtype == jnp.uint8
