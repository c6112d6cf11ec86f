import pytest
from exhaustive import LABELS

from w2v2_jax.data.text import LETTERS, Vocabulary
from w2v2_jax.decoding.lexicon import Lexicon, LexiconError, lexicon_of_words, read_lexicon


def test_words_are_spelled_by_letters_and_the_mark():
    lexicon = lexicon_of_words(["A", "IT'S"], LETTERS)
    assert lexicon == Lexicon({"A": (("A", "|"),), "IT'S": (("I", "T", "'", "S", "|"),)})


def test_marks_of_the_model_and_repeated_words_are_no_words():
    assert lexicon_of_words(["<s>", "THE", "<unk>", "A", "THE", "</s>"], LETTERS).words == ("THE", "A")


def test_words_that_the_labels_cannot_write_are_left_out():
    assert lexicon_of_words(["A", "CAFÉ", "THE", "A|B", "X-RAY", "B", "C"], LETTERS).words == ("A", "THE", "B", "C")


@pytest.mark.parametrize(
    "words, message",
    [
        (["the", "cat", "SAT"], "only 1 of 3 words.*'the' for one cannot; train the model on text in capitals"),
        (["да", "нет"], "only 0 of 2 words.*'да' for one cannot; give a model of the labels' alphabet"),
        ([], "needs words and none were given"),
    ],
)
def test_words_of_another_case_or_alphabet_are_refused(words, message):
    with pytest.raises(LexiconError, match=message):
        lexicon_of_words(words, LETTERS)


def test_a_written_lexicon_is_read_again(tmp_path):
    lexicon = Lexicon({"AB": (("A", "B", "|"), ("B", "A", "|")), "A": (("A", "|"),)})
    lexicon.write(tmp_path / "lexicon.txt")
    assert (tmp_path / "lexicon.txt").read_text() == "AB\tA B |\nAB\tB A |\nA\tA |\n"
    assert read_lexicon(tmp_path / "lexicon.txt", LABELS) == lexicon


@pytest.mark.parametrize("marks", ["", "<unk> < u n k > |\n</s>\n<s> <s>\n"])
def test_a_lexicon_may_list_marks_or_not(tmp_path, marks):
    path = tmp_path / "lexicon.txt"
    path.write_text(f"{marks}A A |\n\n  AB \t A B |  \n")
    assert read_lexicon(path, LABELS).words == ("A", "AB")


@pytest.mark.parametrize(
    "text, message",
    [
        ("A A |\nAC A C |\n", r"line 2 of .*'AC A C \|': 'C' is not a label \(\| A B\)"),
        ("A <pad> |\n", "line 1 .*'<pad>' is not a label"),
        ("A A |\nAB A B\n", "line 2 .*has letters and then, once, '|'"),
        ("AB A | B |\n", "line 1 .*has letters and then, once, '|'"),
        ("A |\n", "line 1 .*has letters and then, once, '|'"),
        ("A\n", "line 1 .*has letters and then, once, '|'"),
        ("\n", "has no words"),
    ],
)
def test_a_line_amiss_is_named(tmp_path, text, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(text)
    with pytest.raises(LexiconError, match=message):
        read_lexicon(path, LABELS)


def test_a_lexicon_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere", "bytes"):
        with pytest.raises(LexiconError, match=f"{name} cannot be read as UTF-8 text"):
            read_lexicon(tmp_path / name, LABELS)


def test_words_are_added_once():
    lexicon = lexicon_of_words(["A", "B"], LETTERS).with_words(["B", "C", "C"], LETTERS)
    assert lexicon.words == ("A", "B", "C")
    assert lexicon.spellings["C"] == (("C", "|"),)


@pytest.mark.parametrize("word", ["caf", "A B", ""])
def test_an_added_word_must_be_writable(word):
    with pytest.raises(LexiconError, match="cannot be written in the letters"):
        lexicon_of_words(["A"], LETTERS).with_words([word], LETTERS)


def test_a_vocabulary_without_the_mark_has_no_lexicon():
    phones = Vocabulary(("<s>", "aa", "b"), specials=("<s>",))
    with pytest.raises(LexiconError, match="search without a lexicon"):
        lexicon_of_words(["b"], phones)
