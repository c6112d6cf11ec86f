import pytest

from w2v2_jax.data.words import WordList, WordListError

COUNTS = {"THE": 9, "B": 3, "A": 3, "RARE": 1}


def test_words_come_by_falling_frequency_behind_the_marks():
    assert WordList.of_counts(COUNTS, max_words=10).words == ("</s>", "<unk>", "THE", "A", "B", "RARE")


def test_the_most_frequent_words_are_kept():
    assert WordList.of_counts(COUNTS, max_words=4).words == ("</s>", "<unk>", "THE", "A")
    assert WordList.of_counts(COUNTS, max_words=10, min_count=2).words == ("</s>", "<unk>", "THE", "A", "B")


def test_a_sentence_is_its_words_and_its_end():
    words = WordList.of_counts(COUNTS, max_words=10)
    assert words.encode(" THE  RARE X\n").tolist() == [2, 5, 1, 0]
    assert words.encode("").tolist() == [0]


def test_a_list_is_read_as_it_was_written(tmp_path):
    words = WordList.of_counts({"ÉTÉ": 2, "A\u2028B": 1}, max_words=10)
    words.write(tmp_path / "words.txt")
    assert WordList.read(tmp_path / "words.txt") == words


def test_unknown_words_of_a_text_stay_unknown():
    assert WordList.of_counts({"<unk>": 9, "A": 1}, max_words=10).words == ("</s>", "<unk>", "A")


@pytest.mark.parametrize("mark", ["<s>", "</s>"])
def test_a_mark_in_the_text_is_an_error(mark):
    with pytest.raises(WordListError, match=f"{mark} is a mark of a language model and no word; remove it"):
        WordList.of_counts({mark: 1, "A": 1}, max_words=10)


@pytest.mark.parametrize(("max_words", "min_count"), [(2, 1), (10, 10)])
def test_a_list_without_words_is_an_error(max_words, min_count):
    with pytest.raises(WordListError, match="leave no word of 4"):
        WordList.of_counts(COUNTS, max_words, min_count)


@pytest.mark.parametrize("words", [("A",), ("<unk>", "</s>", "A"), ("</s>", "<unk>", "A", "A")])
def test_another_file_is_no_word_list(tmp_path, words):
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word}\n" for word in words))
    with pytest.raises(WordListError, match=r"begins with </s> and <unk>|'A' is in the word list 2 times"):
        WordList.read(path)
