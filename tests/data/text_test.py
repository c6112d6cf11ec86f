import numpy as np
import pytest

from w2v2_jax.data.text import LETTERS, TextError, Vocabulary, clean_transcript, spelled


def test_letters_have_the_ids_of_fairseq():
    expected = "<s> <pad> </s> <unk> | E T A O N I H S R D L U M W C F G Y P B V K ' X J Q Z"
    assert " ".join(LETTERS.symbols) == expected
    assert len(LETTERS) == 32


def test_every_word_ends_with_its_mark():
    labels = [LETTERS.symbols[number] for number in LETTERS.encode("IT'S  ME")]
    assert labels == ["I", "T", "'", "S", "|", "M", "E", "|"]


def test_a_text_is_spelled_as_its_labels():
    assert (
        spelled(" A  CAT ") == "A | C A T |" == " ".join(LETTERS.symbols[number] for number in LETTERS.encode("A CAT"))
    )
    assert spelled("") == ""


def test_an_empty_transcript_has_no_labels():
    assert LETTERS.encode("").shape == (0,)
    assert LETTERS.encode(" ").dtype == np.int32


def test_decoding_inverts_encoding():
    assert LETTERS.decode(LETTERS.encode("THE QUICK BROWN FOX")) == "THE QUICK BROWN FOX"


def test_decoding_drops_specials_and_doubled_marks():
    numbers = [0, 4, *LETTERS.encode("A"), 1, 4, 0, *LETTERS.encode("B"), 2, 3]
    assert LETTERS.decode(numbers) == "A B"


def test_a_character_outside_the_vocabulary_is_named_with_its_place_and_transcript():
    with pytest.raises(TextError, match=r"'É' at position 3 of 'CAFÉ AU LAIT'"):
        LETTERS.encode("CAFÉ AU LAIT")


@pytest.mark.parametrize("text", ["A|B", "<s>"])
def test_marks_and_specials_cannot_be_spelled_in_a_transcript(text):
    with pytest.raises(TextError):
        LETTERS.encode(text)


def test_symbols_with_a_separator_are_what_it_separates():
    phones = Vocabulary(("<s>", "ah", "a", "h"), ("<s>",), word_end="", separator=" ")
    assert phones.encode(" ah  h a").tolist() == [1, 3, 2]
    assert phones.decode(phones.encode("ah h a")) == "ah h a"
    with pytest.raises(TextError, match=r"'ha' in 'a ha' is not in the vocabulary \(ah a h\)"):
        phones.encode("a ha")
    with pytest.raises(TextError):
        phones.encode("<s>")


def test_a_vocabulary_of_texts_holds_their_characters_by_frequency():
    vocabulary = Vocabulary.of_texts(["žů žů", "čiů ů"])
    assert vocabulary.symbols == ("<s>", "<pad>", "</s>", "<unk>", "|", "ů", "ž", "i", "č")
    assert vocabulary.decode(vocabulary.encode("či žů")) == "či žů"


def test_a_vocabulary_of_texts_refuses_the_mark_as_a_letter():
    with pytest.raises(TextError, match="marks the end of a word"):
        Vocabulary.of_texts(["a|b"])


@pytest.mark.parametrize(
    "given, cleaned",
    [
        (
            "Please enter your password, followed by the pound key.",
            "PLEASE ENTER YOUR PASSWORD FOLLOWED BY THE POUND KEY",
        ),
        ("Call-Forward on No Answer...", "CALL FORWARD ON NO ANSWER"),
        ("Waldo\u2019s 'premier' provider", "WALDO'S PREMIER PROVIDER"),
        ("  two\twords ", "TWO WORDS"),
        ("!?", ""),
    ],
)
def test_english_is_cleaned_to_capitals_and_single_spaces(given, cleaned):
    assert clean_transcript(given) == cleaned


@pytest.mark.parametrize("given, character", [("Press 1", "1"), ("at @", "@"), ("café", "É"), ("A|B", r"\|")])
def test_what_cannot_be_spelled_in_english_letters_is_refused(given, character):
    with pytest.raises(TextError, match=f"'{character}' at position"):
        clean_transcript(given)
