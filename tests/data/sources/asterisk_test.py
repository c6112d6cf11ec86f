import gzip
import importlib.util
import re
import shutil
import subprocess

import numpy as np
import pytest

from w2v2_jax.data.audio import decode_flac
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.asterisk import Asterisk, fetch

G722 = pytest.importorskip("G722").G722

ENGLISH = {f"prompt-{i}": f"This is prompt {word}." for i, word in enumerate(("alpha", "bravo", "charlie", "delta"))}
ENGLISH |= {f"spoken-{i}": f"{'very ' * i}well said." for i in range(40)}
ENGLISH |= {
    f"again-{i}": f"{'Very ' * i}Well said..." for i in range(0, 40, 3)
}  # the same sentences, written otherwise
ODD = {
    "beep": "[this is a simple beep tone]",
    "press": "Press 1 now, or press 007.",
    "digit": "Press 2 now.",
    "word": "Press two now.",
    "silence/1": "(1 second of silence)",
    "menu": "A menu that takes a minute.",
    "lost": "Nobody recorded this.",
    "letters/at": "at [@]",
}
SPANISH = {"hello": "¡Hola!", "digits/1": "uno"}
BORROWED = {f"borrowed-{i}": text for i, text in enumerate(ENGLISH.values())}  # spelled the same in both languages


def tone(seconds, seed):
    time = np.arange(round(16_000 * seconds)) / 16_000
    return (8000 * np.sin(2 * np.pi * (200 + 10 * seed) * time)).astype(np.int16)


def write_language(root, language, voice, texts, recorded):
    """The layout of Debian's packages in miniature."""
    for seed, (key, seconds) in enumerate(recorded.items()):
        path = root / f"usr/share/asterisk/sounds/{voice}/{key}.g722"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(G722(16_000, 64_000).encode(tone(seconds, seed)))
    doc = root / f"usr/share/doc/asterisk-core-sounds-{language}"
    doc.mkdir(parents=True, exist_ok=True)
    lines = ["; Core Asterisk Sounds", "", *(f"{key}: {text}" for key, text in texts.items()), "untold:"]
    (doc / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode("utf-8-sig")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompts")
    english = ENGLISH | ODD
    recorded = {key: 61.0 if key == "menu" else 0.5 for key in [*english, "untold", "unlisted"] if key != "lost"}
    write_language(root, "en", "en_US_f_Allison", english, recorded)
    write_language(root, "es", "es_MX_f_Allison", SPANISH | BORROWED, dict.fromkeys(SPANISH | BORROWED, 0.5))
    return root


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    return data_dir, prepare(Asterisk(str(folder), ("en", "es")), data_dir, progress=False)


def all_records(data_dir, split):
    records = open_split("asterisk", split, data_dir)
    return [records[i] for i in range(len(records))]


def spoken(text):
    return re.sub(r"\W", "", text.casefold())


def test_held_out_sentences_are_in_no_other_split_even_when_another_prompt_says_them(corpus):
    data_dir, _ = corpus
    records = {split: all_records(data_dir, split) for split in ("train", "labelled", "dev", "test")}
    texts = {split: {spoken(record["text"]) for record in records[split]} for split in records}
    for held_out in ("dev", "test"):
        assert texts[held_out]
        assert not any(texts[held_out] & texts[split] for split in records if split != held_out)
    assert {r["id"] for r in records["labelled"]} <= {r["id"] for r in records["train"]}


def test_every_prompt_is_kept_or_rejected_in_train_dev_or_test(corpus):
    _, report = corpus
    total = sum(report.splits[split].kept + report.splits[split].rejected for split in ("train", "dev", "test"))
    assert total == len(ENGLISH | ODD | {"untold": "", "unlisted": ""}) + len(SPANISH | BORROWED) + 1


def test_rejects_say_why(corpus):
    _, report = corpus
    reasons = {reject.id: reject.reason.split(":")[0] for reject in report.rejects if reject.split == "train"}
    reasons |= {reject.id: reject.reason.split(":")[0] for reject in report.rejects if reject.id == "en/menu"}
    assert reasons["en/beep"] == reasons["en/silence/1"] == "no words"
    assert reasons["en/untold"] == reasons["en/unlisted"] == reasons["es/untold"] == "no words"
    assert reasons["en/menu"] == "too long"
    assert "held out" in {reason for key, reason in reasons.items() if key.startswith("es/borrowed")}
    assert "missing" in {reject.reason.split(":")[0] for reject in report.rejects if reject.id == "en/lost"}


def test_english_is_spelled_in_letters_where_it_is_labelled(corpus):
    data_dir, _ = corpus
    for split in ("labelled", "dev", "test"):
        for record in all_records(data_dir, split):
            assert re.fullmatch(r"[A-Z' ]+", record["text"])
            assert record["language"] == "en"


def test_other_languages_are_in_train_as_they_are_written(corpus):
    data_dir, _ = corpus
    records = [record for record in all_records(data_dir, "train") if record["language"] == "es"]
    spanish = {record["id"]: record for record in records if "borrowed" not in record["id"]}
    assert {key: record["text"] for key, record in spanish.items()} == {"es/hello": "¡Hola!", "es/digits/1": "uno"}
    assert spanish["es/hello"]["speaker"] == "es_MX_f_Allison"


def test_a_decoded_prompt_has_its_pitch(corpus):
    data_dir, _ = corpus
    record = next(r for r in all_records(data_dir, "train") if r["id"] == "es/digits/1")  # the second: 210 Hz
    spectrum = np.abs(np.fft.rfft(decode_flac(record["audio"])))
    assert spectrum.argmax() * 16_000 / record["num_samples"] == pytest.approx(210, abs=2)


def test_labelled_stops_at_its_minutes(folder):
    labelled = Asterisk(str(folder), ("en",), labelled_minutes=0.1).splits()["labelled"]
    assert len(labelled) == pytest.approx(12, abs=1)  # half a second each


def test_labelled_leaves_out_long_prompts(folder):
    assert not Asterisk(str(folder), ("en",), labelled_max_seconds=0.4).splits()["labelled"]


def test_a_digit_to_press_is_the_word_that_is_said(folder):
    splits = Asterisk(str(folder), ("en",)).splits()
    of = {prompt.id: (split, prompt.text) for split in ("train", "dev", "test") for prompt in splits[split]}
    (digit_split, digit), (word_split, word) = of["en/digit"], of["en/word"]
    assert digit.upper().rstrip(".") == word.upper().rstrip(".") == "PRESS TWO NOW"
    assert digit_split == word_split
    assert "007" in of["en/press"][1] or of["en/press"][1] == ""  # as it cannot be known how it is said


def write_package(debs, language, voice, texts):
    """A package of one language in the folder `debs`."""
    package = debs / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    write_language(package, language, voice, texts, dict.fromkeys(texts, 0.5))
    subprocess.run(["dpkg-deb", "-b", package, debs / f"{language}.deb"], check=True, capture_output=True)
    shutil.rmtree(package)
    return debs / f"{language}.deb"


with_packages = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="there is no dpkg-deb on this machine")


@with_packages
def test_packages_in_the_folder_are_unpacked(tmp_path):
    write_package(tmp_path, "es", "es_MX_f_Allison", SPANISH)
    assert len(Asterisk(str(tmp_path), ("es",)).splits()["train"]) == 3


@with_packages
def test_a_package_that_comes_later_is_unpacked_too_and_no_other_again(tmp_path):
    write_package(tmp_path, "es", "es_MX_f_Allison", SPANISH)
    Asterisk(str(tmp_path), ("es",)).splits()
    write_package(tmp_path, "fr", "fr_CA_f_June", {"hello": "Bonjour !"})
    kept = tmp_path / "usr/share/asterisk/sounds/es_MX_f_Allison/hello.g722"
    kept.write_bytes(b"")
    assert len(Asterisk(str(tmp_path), ("es", "fr")).splits()["train"]) == 3 + 2
    assert not kept.read_bytes()


@with_packages
def test_a_package_that_was_not_unpacked_whole_is_unpacked_again(tmp_path, monkeypatch):
    write_package(tmp_path, "es", "es_MX_f_Allison", SPANISH)

    def interrupt(*arguments, **settings):
        (tmp_path / "usr/share/asterisk/sounds/es_MX_f_Allison").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(subprocess, "run", interrupt)
        Asterisk(str(tmp_path), ("es",)).splits()
    assert len(Asterisk(str(tmp_path), ("es",)).splits()["train"]) == 3


@with_packages
def test_a_damaged_package_is_an_error_that_names_it_until_it_is_fetched_again(tmp_path):
    package = write_package(tmp_path, "es", "es_MX_f_Allison", SPANISH)
    whole = package.read_bytes()
    package.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"es\.deb can't be unpacked \(.+\); remove it and fetch it again"):
            Asterisk(str(tmp_path), ("es",)).splits()
    package.write_bytes(whole)
    assert len(Asterisk(str(tmp_path), ("es",)).splits()["train"]) == 3


def test_without_what_unpacks_packages_the_error_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "es.deb").touch()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CorpusError, match=r"dpkg-deb is not here to unpack .*es\.deb; unpack it elsewhere"):
        Asterisk(str(tmp_path), ("es",)).splits()


def test_a_folder_without_prompts_says_what_is_expected(tmp_path):
    with pytest.raises(CorpusError, match=r"no Asterisk prompts of language 'it'.*core-sounds-it.txt.gz.*run fetch"):
        Asterisk(str(tmp_path), ("it",)).splits()


def test_without_the_decoder_the_error_names_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install g722"):
        Asterisk(str(folder)).splits()


def test_without_apt_the_error_names_the_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        CorpusError, match=r"put the .deb files of asterisk-core-sounds-ru, asterisk-core-sounds-ru-g722"
    ):
        fetch(tmp_path, ("ru",))
