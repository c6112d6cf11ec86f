import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from w2v2_jax.decoding.arpa import NEVER, ArpaError, read_arpa, to_binary, write_arpa
from w2v2_jax.decoding.ngram import fallback_discounts, train_ngram
from w2v2_jax.disk import DiskFullError

VERSES = (Path(__file__).parent / "data" / "verses.txt").read_text().splitlines()

ARPA = """\

\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-0.5\t<unk>
-99\t<s>\t-0.25
-0.75\t</s>
-1.5\tÉTÉ\t0.125

\\2-grams:
-0.1\t<s> ÉTÉ
-0.2\tÉTÉ </s>
-0.3\t<s> </s>

\\end\\
"""


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_a_model_comes_back_from_its_file(tmp_path, name):
    model = train_ngram(VERSES, 3, prune=(0, 0, 1))
    write_arpa(model, tmp_path / name)
    read = read_arpa(tmp_path / name)
    assert list(read.ids.items()) == list(model.ids.items())
    for found, expected in zip(read.orders, model.orders, strict=True):
        np.testing.assert_array_equal(found.keys, expected.keys)
        np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-6, atol=1e-12)


def test_a_file_read_and_written_again_is_the_same_to_the_byte(tmp_path):
    for name in ("first.arpa.gz", "second.arpa.gz"):
        write_arpa(train_ngram(VERSES, 3), tmp_path / name)
    write_arpa(read_arpa(tmp_path / "first.arpa.gz"), tmp_path / "third.arpa.gz")
    first, second, third = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert first == second == third


def test_a_full_disk_is_named_and_keeps_no_half_written_model(small_disk):
    words = np.random.default_rng(0).integers(9999, size=(9, 9999))
    model = train_ngram((" ".join(map(str, row)) for row in words), 4, discounts=fallback_discounts)
    with pytest.raises(DiskFullError, match=r"a language model could not be written"):
        write_arpa(model, small_disk / "lm.arpa")
    assert list(small_disk.iterdir()) == []


def test_kenlm_reads_what_is_written(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    model = train_ngram(VERSES, 4)
    write_arpa(model, tmp_path / "lm.arpa")
    theirs = kenlm.Model(str(tmp_path / "lm.arpa"))
    for sentence in (*VERSES, "AN UNHEARD WORD OF GOD"):
        assert theirs.score(sentence) == pytest.approx(model.log10_probs(sentence.split()).sum(), abs=1e-4)


def test_a_file_in_another_order_with_spaces_and_without_optional_back_offs_is_read(tmp_path):
    model = read_arpa(write(tmp_path / "lm.arpa", "# made by hand\n" + ARPA.replace("\t", "  ").replace("\n", "\r\n")))
    # <s> ÉTÉ </s> has both bigrams; ÉTÉ ÉTÉ backs off with 0.125 and <unk> ÉTÉ with nothing.
    assert model.log10_probs(["ÉTÉ"]).tolist() == [-0.1, -0.2]
    assert model.log10_probs(["ÉTÉ", "ÉTÉ"]).tolist() == [-0.1, 0.125 - 1.5, -0.2]
    assert model.log10_probs(["HIVER", "ÉTÉ"]).tolist() == [-0.25 - 0.5, -1.5, -0.2]
    assert model.log10_probs([]).tolist() == [-0.3]


def test_unknown_words_may_be_written_in_capitals(tmp_path):
    model = read_arpa(write(tmp_path / "lm.arpa", ARPA.replace("<unk>", "<UNK>").replace("ÉTÉ </s>", "ÉTÉ <UNK>")))
    assert model.log10_probs(["ÉTÉ", "HIVER"])[1] == -0.2


def test_a_file_without_unknown_words_gives_them_almost_no_probability(tmp_path):
    text = ARPA.replace("-0.5\t<unk>\n", "").replace("ngram 1=4", "ngram 1=3")
    assert read_arpa(write(tmp_path / "lm.arpa", text)).log10_probs(["HIVER"])[0] == NEVER - 0.25


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"),
    [
        ("\\data\\", "mmap lm", 2, "is not the .data. that an ARPA file begins with"),
        ("ngram 1=4", "ngram 1=four", 3, "does not declare"),
        ("ngram 2=3", "ngram 3=3", 4, "does not declare one or more 2-grams"),
        ("ngram 2=3", "ngram 2=0", 4, "does not declare one or more 2-grams"),
        ("ngram 1=4\nngram 2=3\n", "", 3, "no numbers of n-grams"),
        ("ngram 1=4", "ngram 1=3", 10, "stands where .2-grams: has to"),
        ("ngram 1=4", "ngram 1=5", 11, "'' is not one of the 5 1-grams"),
        ("ngram 2=3", "ngram 2=2", 15, "stands where .end. has to; do the declared counts fit"),
        ("ngram 2=3", "ngram 2=4", 16, "'' is not one of the 4 2-grams"),
        ("\\2-grams:", "\\3-grams:", 12, "stands where .2-grams: has to"),
        ("-0.2\t", "half\t", 14, "is not one of the 3 2-grams"),
        ("-0.2\tÉTÉ </s>", "-0.2\t</s>", 14, "is not one of the 3 2-grams"),
        ("ÉTÉ </s>", "ÉTÉ </s>\t0 0", 14, "is not one of the 3 2-grams"),
        ("-0.2\t", "0.2\t", 14, "at most 0"),
        ("-0.2\t", "nan\t", 14, "at most 0"),
        ("-0.25", "nan", 8, "a finite number"),
        ("-0.25", "inf", 8, "a finite number"),
        ("ÉTÉ </s>", "HIVER </s>", 14, "'HIVER' is not among the 1-grams"),
        ("-0.3\t<s> </s>", "-0.3\t<s> ÉTÉ", 15, "in the file already"),
        ("-1.5\tÉTÉ", "-1.5\t<s>", 10, "in the file already"),
        ("-0.75\t</s>", "-0.75\t</S>", 10, "without <s> or without </s>"),
        ("\\end\\", "", 18, "cut off"),
        ("-0.2\tÉTÉ </s>\n-0.3\t<s> </s>\n\n\\end\\\n", "", 14, "cut off"),
        ("-0.2\tÉTÉ </s>\n-0.3\t<s> </s>\n\n\\end\\\n", "-0.2\tÉTÉ </", 14, "'ÉTÉ|</' is not among"),
    ],
)
def test_a_corrupt_file_is_refused_in_one_line_that_names_the_line(tmp_path, right, wrong, line, message):
    assert right in ARPA
    path = write(tmp_path / "lm.arpa", ARPA.replace(right, wrong, 1))
    with pytest.raises(ArpaError, match=message) as error:
        read_arpa(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert "\n" not in str(error.value)


def test_a_context_that_is_no_ngram_is_refused(tmp_path):
    text = ARPA.replace("ngram 2=3", "ngram 2=3\nngram 3=1")
    path = write(tmp_path / "lm.arpa", text.replace("\n\\end", "\n\\3-grams:\n-1 </s> <s> ÉTÉ\n\n\\end"))
    with pytest.raises(ArpaError, match="line 19: the first words of this 3-gram are not among the 2-grams"):
        read_arpa(path)


def test_words_that_are_not_utf8_are_refused(tmp_path):
    with pytest.raises(ArpaError, match=r"line 10: .*UTF-8"):
        read_arpa(write(tmp_path / "lm.arpa", ARPA.encode("latin-1")))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no gzip" + data, lambda data: b""])
def test_a_damaged_compressed_file_is_refused(tmp_path, damage):
    path = write(tmp_path / "lm.arpa.gz", damage(gzip.compress(ARPA.encode())))
    with pytest.raises(ArpaError, match=r"damaged|cut off") as error:
        read_arpa(path)
    assert "\n" not in str(error.value)


def test_a_binary_needs_kenlms_own_program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="build_binary is not on the PATH: build KenLM"):
        to_binary(tmp_path / "lm.arpa", tmp_path / "lm.bin")


@pytest.mark.skipif(shutil.which("build_binary") is None, reason="KenLM's build_binary is not on the PATH")
def test_the_binary_has_the_scores_of_the_text(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    write_arpa(train_ngram(VERSES, 4), tmp_path / "lm.arpa")
    to_binary(tmp_path / "lm.arpa", tmp_path / "lm.bin")
    text, binary = (kenlm.Model(str(tmp_path / name)) for name in ("lm.arpa", "lm.bin"))
    assert all(text.score(sentence) == binary.score(sentence) for sentence in VERSES)
    with pytest.raises(ArpaError, match="build_binary refuses"):
        to_binary(write(tmp_path / "bad.arpa", "no model"), tmp_path / "bad.bin")
