import gzip
import json
import random
from collections import Counter
from itertools import islice

import jax
import numpy as np
import pytest

from w2v2_jax.data.buckets import Bucket, FixedBuckets, PercentileBuckets
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.iterators import Host
from w2v2_jax.data.language import Lines, prepare_text, read_lines, text_dir
from w2v2_jax.data.words import WordList, WordListError

BUCKETS = FixedBuckets((Bucket(4, 8, 4), Bucket(12, 4, 12)))
SENTENCES = [" ".join(random.Random(n).choices("ABCDEFGH", k=1 + n % 11)) for n in range(61)]


def read_splits(splits):
    return {split: [*read_lines(files)] for split, files in splits.items()}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.txt").write_text("\n".join(SENTENCES) + "\n\n")
    (folder / "dev.txt").write_text("A B\nC NEW\n")
    splits = {"train": [folder / "train.txt"], "dev": [folder / "dev.txt"]}
    prepare_text(read_splits(splits), "letters", folder, max_words=20)
    return folder


@pytest.fixture
def lines(data_dir):
    return Lines("letters", "train", num_words=20, buckets=BUCKETS, data_dir=data_dir)


def sentences_of(batches, data_dir):
    words = WordList.read(text_dir("letters", data_dir) / "words.txt").words
    for batch in batches:
        for row, length in zip(batch.tokens, batch.num_tokens, strict=True):
            assert not row[length:].any()
            if length:
                assert words[row[length - 1]] == "</s>"
                yield " ".join(words[token] for token in row[: length - 1])


def test_an_epoch_has_every_sentence_once_and_filler_rows_of_zeros(lines, data_dir):
    batches = list(lines.epoch())
    assert Counter(sentences_of(batches, data_dir)) == Counter(SENTENCES)
    assert {batch.tokens.shape for batch in batches} == {(8, 4), (4, 12)}
    assert sum(len(batch.tokens) for batch in batches) > len(SENTENCES)


def test_training_takes_every_sentence_equally_often(lines, data_dir):
    """61 sentences; the batches of ten epochs lack what fills no batch, at most 12 rows."""
    rows = Counter()
    batches = lines.batches(seed=0)
    while sum(rows.values()) < 10 * len(SENTENCES) - 12:
        rows.update(sentences_of([next(batches)], data_dir))
    seen = {sentence: rows[sentence] / count for sentence, count in Counter(SENTENCES).items()}
    assert set(map(round, seen.values())) <= {9, 10}


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(lines):
    first, again, other = (list(islice(lines.batches(seed), 9)) for seed in (0, 0, 1))
    assert all(map(equal, first, again))
    assert not all(map(equal, first, other))


def equal(batch, other):
    return np.array_equal(batch.tokens, other.tokens) and np.array_equal(batch.num_tokens, other.num_tokens)


@pytest.mark.parametrize("done", [0, 1, 9])
def test_a_restored_iterator_goes_on_as_if_never_stopped(lines, done):
    unbroken = list(islice(lines.batches(seed=3), done + 5))
    first = lines.batches(seed=3)
    for _ in range(done):
        next(first)
    second = lines.batches(seed=3)
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert all(map(equal, unbroken[done:], islice(second, 5)))


def test_hosts_together_have_the_batches_of_one_host(lines):
    alone = islice(lines.batches_on(Host(0, 1), seed=0), 6)
    shared = zip(*(islice(lines.batches_on(Host(index, 2), seed=0), 6) for index in (0, 1)), strict=True)
    for batch, parts in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(batch.tokens, np.concatenate([part.tokens for part in parts]))


def test_shapes_are_those_of_the_batches(lines):
    batches = {jax.tree.map(np.shape, batch) for batch in lines.epoch()}
    assert {jax.tree.map(lambda x: x.shape, shape) for shape in lines.shapes()} == batches


def test_the_summary_counts_sentences_and_tokens(lines):
    summary = json.loads(json.dumps(lines.summary()))
    tokens = sum(len(sentence.split()) + 1 for sentence in SENTENCES)
    assert (summary["sentences"], summary["tokens"]) == (len(SENTENCES), tokens)


def test_words_of_other_splits_may_be_unknown(data_dir):
    dev = Lines("letters", "dev", 20, BUCKETS, data_dir=data_dir)
    assert sorted(sentences_of(dev.epoch(), data_dir)) == ["A B", "C <unk>"]


def test_buckets_from_percentiles_hold_the_text(data_dir):
    buckets = PercentileBuckets(samples_per_batch=64, num_buckets=3, batch_multiple=2, round_samples_to=2)
    lines = Lines("letters", "train", 20, buckets, data_dir=data_dir)
    assert Counter(sentences_of(lines.epoch(), data_dir)) == Counter(SENTENCES)
    assert all(np.prod(shape.tokens.shape) <= 64 for shape in lines.shapes())


def test_long_sentences_are_left_out_and_counted(data_dir, caplog):
    lines = Lines("letters", "train", 20, BUCKETS, max_tokens=5, data_dir=data_dir)
    short = [sentence for sentence in SENTENCES if len(sentence.split()) < 5]
    assert Counter(sentences_of(lines.epoch(), data_dir)) == Counter(short)
    assert f"left out {len(SENTENCES) - len(short)} of 61 sentences: over 5 tokens" in caplog.text


def test_compressed_text_is_read_like_plain_text(tmp_path):
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("A B\n\nC\n")
    assert list(read_lines([tmp_path / "a.txt.gz"])) == ["A B\n", "C\n"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", b"\xff\n"), ("a.gz", b"A B"), ("b.gz", gzip.compress(b"A", mtime=0)[:9])]
)
def test_files_that_are_no_text_are_an_error_that_names_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name} can't be read as UTF-8 text"):
        list(read_lines([tmp_path / name]))


def test_a_text_that_is_not_there_is_an_error_that_lists_what_is(data_dir):
    with pytest.raises(CorpusError, match=r"splits of the text 'letters': dev, train"):
        Lines("letters", "test", 20, BUCKETS, data_dir=data_dir).summary()
    with pytest.raises(CorpusError, match=r"splits of the text 'other': none"):
        Lines("other", "train", 20, BUCKETS, data_dir=data_dir).summary()


def test_more_words_than_the_model_has_are_an_error(data_dir):
    with pytest.raises(CorpusError, match=r"has 10 words and the model num_words=9"):
        Lines("letters", "train", 9, BUCKETS, data_dir=data_dir).summary()


def test_sentences_that_fit_nowhere_are_an_error(data_dir):
    with pytest.raises(ValueError, match="up to 12 tokens fit in none of"):
        Lines("letters", "train", 20, FixedBuckets((Bucket(4, 8, 4),)), data_dir=data_dir).summary()
    with pytest.raises(ValueError, match="none of the 61 sentences of 'letters' has up to max_tokens=1"):
        Lines("letters", "train", 20, BUCKETS, max_tokens=1, data_dir=data_dir).summary()


def test_a_text_is_prepared_whole_or_not_at_all(tmp_path, data_dir):
    (tmp_path / "empty.txt").write_text("\n \n")
    splits = {"train": [data_dir / "train.txt"], "dev": [tmp_path / "empty.txt"]}
    with pytest.raises(CorpusError, match="split 'dev' has no sentence"):
        prepare_text(read_splits(splits), "letters", tmp_path, max_words=20)
    assert not text_dir("letters", tmp_path).exists()
    prepare_text(read_splits({**splits, "dev": splits["train"]}), "letters", tmp_path, max_words=20)
    with pytest.raises(CorpusError, match="exists; give another name"):
        prepare_text(read_splits(splits), "letters", tmp_path, max_words=20)
    with pytest.raises(WordListError, match="leave no word"):
        prepare_text(read_splits(splits), "other", tmp_path, max_words=1)
