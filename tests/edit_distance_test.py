import jax
import jax.numpy as jnp
import jiwer
import numpy as np
import pytest

from w2v2_jax.edit_distance import edit_distance, words_of

BOUNDARY = 4


def padded(rows, size=None):
    """Rows with rubbish behind their ends, and their lengths."""
    size = size or max(len(row) for row in rows)
    values = np.random.default_rng(9).integers(1, 5, (len(rows), size), dtype=np.int32)
    for place, row in enumerate(rows):
        values[place, : len(row)] = row
    return jnp.array(values), jnp.array([len(row) for row in rows])


def levenshtein(a, b):
    """The textbook's table, cell by cell."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substituted = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(substituted, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[len(a), len(b)]


def random_rows(rng, num_rows, longest, num_symbols):
    return [rng.integers(1, num_symbols + 1, rng.integers(0, longest + 1)) for _ in range(num_rows)]


@pytest.mark.parametrize("num_symbols", [1, 3, 1000])
def test_distance_is_the_textbooks_on_random_sequences(num_symbols):
    rng = np.random.default_rng(num_symbols)
    hypotheses = [*random_rows(rng, 60, 9, num_symbols), *random_rows(rng, 3, 0, num_symbols)]
    references = [*random_rows(rng, 62, 12, num_symbols), []]
    found = jax.jit(edit_distance)(*padded(hypotheses), *padded(references))
    assert found.tolist() == [levenshtein(a, b) for a, b in zip(hypotheses, references, strict=True)]


def test_distance_from_and_to_nothing_is_the_length_of_the_other():
    words, nothing = padded([[1, 2, 3], []]), padded([[], []], size=1)
    assert edit_distance(*words, *nothing).tolist() == [3, 0]
    assert edit_distance(*nothing, *words).tolist() == [3, 0]


def test_distance_to_a_reference_without_any_room_is_the_length():
    assert edit_distance(*padded([[1, 2, 3], []]), *padded([[], []])).tolist() == [3, 0]


def test_words_are_what_stands_between_boundaries():
    rows, counts = padded([[1, 2, 4, 3, 4], [4, 4, 1, 2, 4, 4, 3], [3], [4], []])
    words = words_of(rows, counts, BOUNDARY)
    assert words.count.tolist() == [2, 2, 1, 0, 0]
    ids = [row[:count].tolist() for row, count in zip(words.ids, words.count, strict=True)]
    assert ids[0] == ids[1]
    assert ids[2] == ids[0][1:]


def test_words_of_other_letters_or_another_order_differ():
    rows = [[1, 2], [2, 1], [1], [1, 1], [1, 2, 3], [2], []]
    words = words_of(*padded(rows), BOUNDARY)
    assert len({int(ids[0]) for ids in words.ids[:-1]}) == len(rows) - 1


def test_word_errors_equal_those_of_jiwer_on_random_texts():
    """Texts with boundaries at the start, at the end and in a row, which is what a network may spell."""
    rng = np.random.default_rng(0)
    hypotheses, references = ([rng.choice([1, 2, 4, 4], rng.integers(0, 14)) for _ in range(60)] for _ in range(2))
    # jiwer refuses references without a word.
    references = [np.append(reference, 3) for reference in references]

    def spelled(row):
        return " ".join("".join(map(str, row)).replace("4", " ").split())

    def words_and_count(rows):
        return words_of(*padded(rows), BOUNDARY)

    found = edit_distance(*words_and_count(hypotheses), *words_and_count(references))
    for errors, hypothesis, reference in zip(found, hypotheses, references, strict=True):
        counts = jiwer.process_words(spelled(reference), spelled(hypothesis))
        assert errors == counts.substitutions + counts.deletions + counts.insertions
