import jax
import numpy as np
import pytest

from w2v2_jax.convert.lazy_tensors import LazyTensor


@pytest.fixture
def path(tmp_path):
    """Three bytes, then the numbers from 0 to 23."""
    (tmp_path / "numbers").write_bytes(b"abc" + np.arange(24, dtype=np.float32).tobytes())
    return tmp_path / "numbers"


@pytest.fixture
def numbers(path):
    return LazyTensor(path, 3, np.dtype(np.float32), (24,), (1,))


@pytest.mark.parametrize(
    "start, shape, strides",
    [(0, (24,), (1,)), (5, (2, 3), (3, 1)), (1, (3, 2), (1, 3)), (2, (4,), (7,)), (3, (2, 5), (1, 0)), (7, (), ())],
)
def test_a_view_is_read_as_numpy_would_cut_it(numbers, start, shape, strides):
    everything = np.arange(24, dtype=np.float32)[start:]
    expected = np.lib.stride_tricks.as_strided(everything, shape, [4 * stride for stride in strides])
    array = numbers.view(start, shape, strides).read()
    assert array.shape == shape and array.flags.c_contiguous and array.flags.writeable
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("start", [0, 24])
def test_an_empty_view_is_read(numbers, start):
    assert numbers.view(start, (3, 0), (1, 1)).read().shape == (3, 0)


@pytest.mark.parametrize(
    "start, shape, strides",
    [(0, (25,), (1,)), (20, (2, 3), (3, 1)), (-1, (1,), (1,)), (9, (2,), (-1,)), (25, (0,), (1,))],
)
def test_a_view_must_lie_within(numbers, start, shape, strides):
    with pytest.raises(ValueError, match="doesn't fit in one of 24 elements"):
        numbers.view(start, shape, strides)


def test_only_the_span_is_read(path, numbers):
    tensor = numbers.view(4, (2,), (2,))
    path.write_bytes(bytes(3 + 4 * 4) + np.array([4, 5, 6], np.float32).tobytes())
    np.testing.assert_array_equal(tensor.read(), [4, 6])


def test_a_file_that_became_shorter_is_noticed(path, numbers):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="numbers ends within a tensor"):
        numbers.read()


def test_a_file_that_has_gone_is_named(path, numbers):
    path.unlink()
    with pytest.raises(FileNotFoundError, match="numbers"):
        numbers.read()


def test_lazy_tensors_are_leaves_to_jax(numbers):
    assert jax.tree.map(lambda tensor: tensor.read().sum(), {"a": [numbers]}) == {"a": [276]}
