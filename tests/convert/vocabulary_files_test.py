"""Vocabularies next to the tokenizers of transformers, which write the files that are read and read those written."""

import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")

import tiny_transformers as tiny  # noqa: E402

from w2v2_jax.convert.card import FormatError  # noqa: E402
from w2v2_jax.convert.folders import read_json  # noqa: E402
from w2v2_jax.convert.vocabulary_files import (  # noqa: E402
    PHONES,
    default_language,
    letters_if_they_fit,
    read_dictionary,
    read_vocabulary,
    write_dictionary,
    write_vocabulary,
)
from w2v2_jax.data.text import LETTERS, Vocabulary  # noqa: E402

FAIRSEQ_ORDER = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETA")
PAD_LAST = ("E", "T", "A", "|", "[UNK]", "[PAD]")
PHONE_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>", "a", "tʃ", "ɛ:")
BRACKETED = {"pad_token": "[PAD]", "unk_token": "[UNK]"}


def tokenizer(folder, symbols, cls="Wav2Vec2CTCTokenizer", **settings):
    """As transformers makes and saves one."""
    vocabulary = tiny.write_json(folder / "vocab.json", {symbol: number for number, symbol in enumerate(symbols)})
    made = getattr(transformers, cls)(str(vocabulary), **settings)
    made.save_pretrained(folder)
    return made


def assert_decodes_as(vocabulary, theirs):
    """CTC's repeats and blanks are theirs to take out, which needs a blank between symbols."""
    spoken = [number for number, symbol in enumerate(vocabulary.symbols) if symbol not in vocabulary.specials]
    for ids in np.random.default_rng(0).choice(spoken, (20, 12)):
        path = [each for number in ids for each in (number, vocabulary.blank_id)]
        assert vocabulary.decode(ids) == " ".join(theirs.decode(path).split())


@pytest.mark.parametrize(
    "symbols, settings",
    [
        (FAIRSEQ_ORDER, {}),
        (tiny.SYMBOLS, {"do_lower_case": True}),
        (PAD_LAST, BRACKETED),
    ],
    ids=["blank first", "lower case", "blank last"],
)
def test_a_vocabulary_decodes_as_the_tokenizer_before_and_after_it_is_written(symbols, settings, tmp_path):
    theirs = tokenizer(tmp_path, symbols, **settings)
    vocabulary = read_vocabulary(tmp_path, len(symbols), "")
    assert vocabulary.blank_id == theirs.pad_token_id
    assert_decodes_as(vocabulary, theirs)

    (tmp_path / "export").mkdir()
    write_vocabulary(vocabulary, "", tmp_path / "export")
    assert read_vocabulary(tmp_path / "export", len(symbols), "") == vocabulary
    written = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    assert isinstance(written, transformers.Wav2Vec2CTCTokenizer)
    assert written.pad_token_id == theirs.pad_token_id
    assert written.vocab_size == len(symbols)
    assert_decodes_as(vocabulary, written)


def test_words_end_at_the_mark_of_the_tokenizer(tmp_path):
    """Which transformers, when it loads its own files, takes to be | whatever they say."""
    symbols = ("-", "_", *"abc")
    theirs = tokenizer(tmp_path, symbols, pad_token="-", word_delimiter_token="_")
    assert_decodes_as(read_vocabulary(tmp_path, len(symbols), ""), theirs)


def test_phones_are_separated_as_the_tokenizer_separates_them(tmp_path):
    theirs = tokenizer(tmp_path, PHONE_SYMBOLS, PHONES, do_phonemize=False)
    vocabulary = read_vocabulary(tmp_path, len(PHONE_SYMBOLS), "")
    assert vocabulary.decode([4, 5, 6]) == "a tʃ ɛ:"
    assert_decodes_as(vocabulary, theirs)
    (tmp_path / "export").mkdir()
    write_vocabulary(vocabulary, "", tmp_path / "export")
    assert read_vocabulary(tmp_path / "export", len(PHONE_SYMBOLS), "") == vocabulary
    written = transformers.Wav2Vec2PhonemeCTCTokenizer.from_pretrained(tmp_path / "export")
    assert written("a tʃ ɛ:").input_ids == [4, 5, 6]
    assert_decodes_as(vocabulary, written)


def test_tokens_that_were_added_are_labels_as_far_as_the_head_has_outputs_for_them(tmp_path):
    """A tokenizer adds <s> and </s> to a vocabulary without them; only some heads were made for these too."""
    theirs = tokenizer(tmp_path, PAD_LAST, **BRACKETED)
    assert read_json(tmp_path / "added_tokens.json") == {"<s>": 6, "</s>": 7}
    whole, fewer = (read_vocabulary(tmp_path, num_labels, "") for num_labels in (8, 6))
    assert whole.symbols == (*PAD_LAST, "<s>", "</s>")
    assert fewer.symbols == PAD_LAST
    for vocabulary in (whole, fewer):
        assert_decodes_as(vocabulary, theirs)
        folder = tmp_path / str(len(vocabulary))
        folder.mkdir()
        write_vocabulary(vocabulary, "", folder)
        assert read_vocabulary(folder, len(vocabulary), "").symbols == vocabulary.symbols


def test_special_tokens_of_older_files_are_read(tmp_path):
    tiny.write_json(tmp_path / "vocab.json", {symbol: number for number, symbol in enumerate(PAD_LAST)})
    specials = {"pad_token": {"content": "[PAD]", "lstrip": False}, "unk_token": "[UNK]"}
    tiny.write_json(tmp_path / "special_tokens_map.json", specials)
    vocabulary = read_vocabulary(tmp_path, len(PAD_LAST), "")
    assert (vocabulary.blank, vocabulary.word_end) == ("[PAD]", "|")
    assert {"[PAD]", "[UNK]"} <= set(vocabulary.specials)


def test_of_a_vocabulary_for_many_languages_one_is_read_and_written(tmp_path):
    nested = {"eng": {"<pad>": 0, "|": 1, "a": 2}, "fra": {"<pad>": 0, "é": 1, "|": 2, "à": 3}}
    vocabulary = tiny.write_json(tmp_path / "vocab.json", nested)
    transformers.Wav2Vec2CTCTokenizer(str(vocabulary), target_lang="eng").save_pretrained(tmp_path)
    assert default_language(tmp_path) == "eng"
    french = read_vocabulary(tmp_path, 4, "fra")
    assert french.symbols == ("<pad>", "é", "|", "à")
    with pytest.raises(FormatError, match=r"vocab.json has no language 'deu'; give one of eng, fra$"):
        read_vocabulary(tmp_path, 4, "deu")

    (tmp_path / "export").mkdir()
    write_vocabulary(french, "fra", tmp_path / "export")
    assert json.loads((tmp_path / "export" / "vocab.json").read_text()) == {"fra": nested["fra"]}
    assert default_language(tmp_path / "export") == "fra"
    written = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    assert_decodes_as(french, written)


def test_fairseqs_blank_is_written_as_padding(tmp_path):
    """It is <s> there, in the place that transformers gives to <pad>; <pad> takes that of <s>."""
    write_vocabulary(LETTERS, "", tmp_path)
    written = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (written.pad_token_id, written.bos_token_id) == (0, 1)
    assert_decodes_as(LETTERS, written)
    assert read_vocabulary(tmp_path, len(LETTERS), "").symbols == ("<pad>", "<s>", *LETTERS.symbols[2:])


def test_a_vocabulary_without_the_blank_is_refused(tmp_path):
    tiny.write_json(tmp_path / "vocab.json", {"a": 0, "|": 1})
    with pytest.raises(FormatError, match=r"vocab.json lacks the padding '<pad>', which is the blank of CTC$"):
        read_vocabulary(tmp_path, 2, "")


@pytest.mark.parametrize("ids", [{"<pad>": 0, "a": 2}, {"<pad>": 0, "a": 1, "b": 1}, {"<pad>": 0}])
def test_a_vocabulary_must_name_each_output_once(ids, tmp_path):
    tiny.write_json(tmp_path / "vocab.json", ids)
    with pytest.raises(
        FormatError, match="the head 2 outputs: that takes the ids 0 to 1 once each; give the vocabulary"
    ):
        read_vocabulary(tmp_path, 2, "")


@pytest.mark.parametrize("content, told", [("{", "is not JSON"), ("[1, 2]", "is a list, not a JSON object")])
def test_a_file_that_is_no_json_object_is_refused(content, told, tmp_path):
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(FormatError, match=f"vocab.json {told}.*; fetch it again$"):
        read_vocabulary(tmp_path, 2, "")


def test_a_dictionary_of_fairseq_is_read_and_written(tmp_path):
    write_dictionary(LETTERS, tmp_path / "dict.ltr.txt")
    assert (tmp_path / "dict.ltr.txt").read_text().startswith("| 1\nE 1\nT 1\n")
    assert read_dictionary(tmp_path / "dict.ltr.txt") == LETTERS
    (tmp_path / "dict.ltr.txt").write_text("| 94802\nE\n")
    with pytest.raises(FormatError, match=r"dict.ltr.txt, line 2: 'E' is not a symbol and its count$"):
        read_dictionary(tmp_path / "dict.ltr.txt")


def test_a_vocabulary_in_an_order_that_fairseq_does_not_know_is_refused(tmp_path):
    pad_last = Vocabulary(PAD_LAST, ("[PAD]", "[UNK]"), "[PAD]")
    with pytest.raises(FormatError, match=r"fairseq's first four labels are .*; convert to huggingface$"):
        write_dictionary(pad_last, tmp_path / "dict.ltr.txt")


def test_letters_of_librispeech_are_taken_for_as_many_outputs_alone():
    assert letters_if_they_fit(32) == LETTERS
    assert letters_if_they_fit(31) is None
