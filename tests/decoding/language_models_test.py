import gzip
import sys

import pytest
from exhaustive import ARPA, BINARY, LABELS, log10_prob

from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.language_models import (
    HotWords,
    LanguageModelError,
    NGramFile,
    NoModel,
    arpa_words,
    num_known,
    optional,
)
from w2v2_jax.decoding.lexicon import lexicon_of_words

WORDS = ("A", "AB", "BB")


FORMATS = {"toy.arpa": ARPA.encode(), "toy.arpa.gz": gzip.compress(ARPA.encode()), "toy.bin": BINARY}


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "toy.arpa"
    path.write_text(ARPA)
    return path


@pytest.fixture(params=FORMATS)
def model_file(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(FORMATS[request.param])
    return path


def test_the_words_of_an_arpa_file_are_its_unigrams(arpa):
    assert tuple(arpa_words(arpa)) == WORDS


def test_a_gzipped_arpa_file_has_the_words_of_the_plain_one(tmp_path):
    (tmp_path / "toy.arpa.gz").write_bytes(FORMATS["toy.arpa.gz"])
    assert tuple(arpa_words(tmp_path / "toy.arpa.gz")) == WORDS


def test_words_are_numbered_by_their_place(model_file):
    for words in (WORDS, WORDS[::-1]):
        model = NGramFile(model_file).load(words)
        state, first = model.score(model.start(False), words.index("A"))
        state, second = model.score(state, words.index("AB"))
        assert first + second + model.finish(state)[1] == pytest.approx(log10_prob(("A", "AB")))


def test_known_words_are_told_from_unknown_ones(model_file):
    assert num_known(model_file, ["AB", "BA", "AB"]) == 2


def test_the_words_of_a_binary_file_are_not_to_be_had(tmp_path):
    (tmp_path / "toy.bin").write_bytes(BINARY)
    with pytest.raises(LanguageModelError, match="a binary file does not list its words"):
        tuple(arpa_words(tmp_path / "toy.bin"))


@pytest.mark.parametrize("size", [5, 60, 100])
def test_a_gzipped_file_cut_short_is_refused(tmp_path, size):
    path = tmp_path / "corrupt.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode())[:size])
    with pytest.raises(LanguageModelError, match="damaged"):
        NGramFile(path).load(WORDS)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text[: text.index("-1.1")], "no end of its 1-grams"),
        (lambda text: text[: text.index("\\end")].rstrip()[:-8], "End of file"),
        (lambda text: text.replace("1=6", "1=7"), "Could not parse"),
        (lambda text: text.replace("-0.5\tAB", "x\tAB"), 'Could not parse "x"'),
        (lambda text: text.replace("-0.5\tAB", "-0.5\tAB\tA\tB"), "line 10 is no unigram"),
        (lambda text: text.replace("-0.4\t<s>", "-0.4\tZZ"), "ZZ"),
        (lambda text: "hello\n" + text, "'hello' stands"),
        (lambda text: "", "no end of its 1-grams"),
    ],
)
def test_a_corrupt_arpa_file_is_refused_in_one_line(tmp_path, damage, message):
    path = tmp_path / "corrupt.arpa"
    path.write_text(damage(ARPA))
    with pytest.raises(LanguageModelError, match=message) as raised:
        NGramFile(path).load(WORDS)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("size", [50, 100, 300])
def test_a_binary_file_cut_short_is_refused(tmp_path, size):
    path = tmp_path / "corrupt.bin"
    path.write_bytes(BINARY[:size])
    with pytest.raises(LanguageModelError, match="damaged"):
        NGramFile(path).load(WORDS)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "nowhere.arpa", tmp_path):
        with pytest.raises(LanguageModelError, match=f"there is no language model file {path}"):
            NGramFile(path).load(WORDS)


def test_a_lexicon_of_which_the_model_knows_less_than_half_is_refused(arpa):
    NGramFile(arpa).load(("A", "AB", "b", "ab"))
    with pytest.raises(LanguageModelError, match=r"knows 33\.3% of the 3 words to be recognised, such as 'ab'"):
        NGramFile(arpa).load(("A", "b", "ab"))


def test_a_hot_word_outside_the_lexicon_is_refused():
    search = BeamSearch(LABELS, HotWords(NoModel(), ("BA",)), lexicon_of_words(["A"], LABELS))
    with pytest.raises(LanguageModelError, match="'BA' is not in the lexicon; add it"):
        _ = search.loaded


def test_loading_writes_nothing_to_the_terminal(arpa, capfd):
    NGramFile(arpa).load(WORDS)
    assert capfd.readouterr() == ("", "")
    print("still there", file=sys.stderr)
    assert capfd.readouterr().err == "still there\n"


def test_a_missing_package_is_named_with_its_remedy():
    with pytest.raises(ImportError, match=r"needs no_such_package: pip install 'w2v2_jax\[decode\]'"):
        optional("no_such_package.decoder")
