"""Real speech in five languages: the voice prompts of the Asterisk telephone exchange, from Debian's packages.

People recorded them at 16 kHz for G.722; Digium and others publish them under CC-BY-SA-3.0 and CC-BY-3.0.
"""

import dataclasses
import functools
import gzip
import importlib.util
import re
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from w2v2_jax.data.audio import AudioError, Recording, Utterance, check_duration, check_waveform
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.text import TextError, clean_transcript

LANGUAGES = ("en", "es", "fr", "it", "ru")
BYTES_PER_SECOND = 8_000  # G.722 is 64 kbit/s
BRACKETS = re.compile(r"\[.*?\]|\(.*?\)|<.*?>")
ENGLISH_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LONE_DIGIT = re.compile(r"\b\d\b")


def fetch(folder: str | Path, languages: Sequence[str] = LANGUAGES):
    """Downloads the packages of `languages` into `folder` with apt-get of Debian or Ubuntu; root is not needed."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    packages = [f"asterisk-core-sounds-{language}{kind}" for language in languages for kind in ("", "-g722")]
    try:
        subprocess.run(["apt-get", "download", *packages], cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CorpusError(
            f"apt-get is not here; put the .deb files of {', '.join(packages)} (packages.debian.org) into {folder}"
        ) from error
    except subprocess.CalledProcessError as error:
        raise CorpusError(
            f"apt-get could not download the prompts: {_reason(error)}; try `apt-get update` first"
        ) from error


def _reason(error: subprocess.CalledProcessError) -> str:
    return (error.stderr.strip().splitlines() or ["no reason given"])[-1]


@dataclasses.dataclass(frozen=True)
class Asterisk:
    """The prompts in `folder`, which holds the .deb files that `fetch` gets or what they unpack to (`usr/share/...`).

    `train` is everything but the English of `dev` and `test`, to pretrain on. `labelled` (about `labelled_minutes`
    of the English in `train`, in prompts of at most `labelled_max_seconds`), `dev` and `test` are English with
    transcripts in plain letters. A sentence of `dev` or `test` is in no other split, however many prompts say it and
    in whatever language.
    """

    folder: str
    languages: tuple[str, ...] = LANGUAGES
    name: str = "asterisk"
    labelled_minutes: float = 10.0
    labelled_max_seconds: float = 8.0

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The prompts of every split; those without words are kept in the lists, to be rejected when read."""
        if importlib.util.find_spec("G722") is None:
            raise ImportError("the prompts are coded in G.722: pip install g722")
        _unpack(Path(self.folder))
        prompts = [prompt for language in self.languages for prompt in _prompts(Path(self.folder), language)]
        test = [prompt for prompt in prompts if _is_english(prompt) and _share(prompt) in range(0, 5)]
        dev = [prompt for prompt in prompts if _is_english(prompt) and _share(prompt) in range(5, 8)]
        held_out = {_spoken(prompt) for prompt in dev + test}
        others = [prompt for prompt in prompts if not (_is_english(prompt) and _share(prompt) in range(0, 8))]
        train = [prompt._replace(read=_held_out) if _spoken(prompt) in held_out else prompt for prompt in others]
        spoken = [prompt for prompt in train if _is_english(prompt) and _is_spellable(prompt)]
        short = [prompt for prompt in spoken if _seconds(prompt) <= self.labelled_max_seconds]
        short.sort(key=lambda prompt: _hash(prompt.id))
        total = np.cumsum([_seconds(prompt) for prompt in short])
        labelled = short[: int(np.searchsorted(total, 60 * self.labelled_minutes))]
        spelled = {"labelled": labelled, "dev": dev, "test": test}
        return {"train": train, **{split: [_spell(prompt) for prompt in spelled[split]] for split in spelled}}


def _unpack(folder: Path):
    """Unpacks the .deb files in `folder` there, but those beside which a file says that they were unpacked whole."""
    for package in sorted(folder.glob("*.deb")):
        done = package.with_name(f"{package.name}.unpacked")
        if not done.exists():
            _unpack_package(package)
            done.touch()


def _unpack_package(package: Path):
    command = ["dpkg-deb", "-x", package, package.parent]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CorpusError(
            f"dpkg-deb is not here to unpack {package}; unpack it elsewhere, put its usr/ into {package.parent} and "
            "remove the .deb files there"
        ) from error
    except subprocess.CalledProcessError as error:
        raise CorpusError(f"{package} can't be unpacked ({_reason(error)}); remove it and fetch it again") from error


def _prompts(folder: Path, language: str) -> Iterator[Utterance]:
    """Every prompt of a language that has a transcript, a recording or both."""
    transcripts = folder / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    voices = sorted(folder.glob(f"usr/share/asterisk/sounds/{language}_*"))
    if not (voices and transcripts.exists()):
        raise CorpusError(
            f"{folder} has no Asterisk prompts of language '{language}': {transcripts.relative_to(folder)} and "
            f"usr/share/asterisk/sounds/{language}_* are expected; run fetch({str(folder)!r}) or give other languages"
        )
    texts = _read_transcripts(transcripts)
    files = {file.relative_to(voices[0]).with_suffix("").as_posix(): file for file in voices[0].rglob("*.g722")}
    for key in sorted({*texts, *files}):
        text = _spell_digits(texts.get(key, "")) if language == "en" else texts.get(key, "")
        path = files.get(key, voices[0] / f"{key}.g722")
        yield Utterance(
            id=f"{language}/{key}",
            path=str(path),
            read=functools.partial(_read, path) if _words(text) else functools.partial(_without_words, text),
            text=text,
            speaker=voices[0].name,
            language=language,
        )


def _read_transcripts(path: Path) -> dict[str, str]:
    """The text of every prompt: lines of `key: text`, a semicolon before a comment."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines()
    pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith(";"))
    return {key.strip(): text.strip() for key, _, text in pairs}


def _spell_digits(text: str) -> str:
    """Keys to press are written as digits or as words; longer numbers stay, as they can be read in several ways."""
    return LONE_DIGIT.sub(lambda digit: ENGLISH_DIGITS[int(digit[0])], text)


def _read(path: Path, max_seconds: float) -> Recording:
    """Decodes a prompt."""
    from G722 import G722

    if not path.exists():
        raise AudioError(f"missing: a transcript names {path.name} but there is no such recording")
    coded = path.read_bytes()
    check_duration(len(coded) / BYTES_PER_SECOND, max_seconds)
    samples = np.array(G722(16_000, 64_000).decode(coded), np.int16)
    return Recording(check_waveform(samples.astype(np.float32) / np.float32(2**15), max_seconds))


def _without_words(text: str, max_seconds: float) -> Recording:
    raise AudioError(f"no words: the transcript is {text!r}")


def _held_out(max_seconds: float) -> Recording:
    raise AudioError("held out: dev or test has a sentence that is spelled the same in English")


def _words(text: str) -> str:
    """What of a transcript is spoken: brackets hold remarks and signs."""
    return " ".join(BRACKETS.sub(" ", text).split())


def _is_english(prompt: Utterance) -> bool:
    return prompt.language == "en" and bool(_words(prompt.text))


def _is_spellable(prompt: Utterance) -> bool:
    return Path(prompt.path).exists() and bool(_spell(prompt).text)


def _seconds(prompt: Utterance) -> float:
    return Path(prompt.path).stat().st_size / BYTES_PER_SECOND


def _spell(prompt: Utterance) -> Utterance:
    """`prompt` with its words in plain letters, or one that will be rejected because they are not."""
    try:
        return prompt._replace(text=clean_transcript(_words(prompt.text)))
    except TextError as error:
        return prompt._replace(text="", read=functools.partial(_not_spelled, str(error)))


def _not_spelled(reason: str, max_seconds: float) -> Recording:
    raise AudioError(f"transcript: {reason}")


def _share(prompt: Utterance) -> int:
    """One of twenty shares of all sentences, by what is spoken alone."""
    return _hash(_spoken(prompt)) % 20


def _spoken(prompt: Utterance) -> str:
    """The letters and digits of a prompt: the same for the same sentence, however it is written."""
    return "".join(re.findall(r"\w", _words(prompt.text).casefold()))


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())
