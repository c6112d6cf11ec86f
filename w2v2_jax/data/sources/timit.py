"""TIMIT (LDC93S1), the user's own copy: read sentences whose phones were transcribed by hand.

Train, development and core test set as in the field since Halberstadt 1998: the sentences that every speaker reads (SA)
are in none, the 50 speakers of the development set are of the complete test set. 3,696, 400 and 192 utterances.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2v2_jax.data.audio import AudioError, Phone, Recording, Utterance, read_audio
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.phone_sets import FOLDS


def _speakers(names: str) -> frozenset[str]:
    return frozenset(names.split())


DEV = _speakers(
    "faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0 mrtk0 "
    "mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0 "
    "fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1"
)
CORE_TEST = _speakers(
    "mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 "
    "mnjm0 fdhc0 mjln0 mpam0 fmld0"
)
READ_BY_ALL = "sa"


@dataclasses.dataclass(frozen=True)
class Timit:
    """The copy in `folder`, which holds `TRAIN` and `TEST`, in capitals or not, at any depth.

    Texts are phones, folded to 39, 48 or not at all (61). Phones with their times are as transcribed.
    """

    folder: str
    name: str = "timit"
    num_phones: int = 39

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of train, dev and core test set."""
        if self.num_phones not in FOLDS:
            sets = ", ".join(map(str, FOLDS))
            raise CorpusError(f"TIMIT's phones can't be folded to {self.num_phones}; give one of {sets}")
        found = sorted(_transcripts(Path(self.folder)))
        train, test = ([file for file in found if _part(file) == part] for part in ("train", "test"))
        missing = sorted((DEV | CORE_TEST) - {_speaker(file) for file in test})
        if missing or not train:
            named = ", ".join(missing[:3] + ["..."] * (len(missing) > 3)) or "none"
            raise CorpusError(
                f"{self.folder} is not the whole of TIMIT: {len(train)} .PHN files under TRAIN, {len(test)} under "
                f"TEST, missing speakers of dev and test: {named}; give the folder that holds both as published"
            )
        files = {
            "train": train,
            "dev": [file for file in test if _speaker(file) in DEV],
            "test": [file for file in test if _speaker(file) in CORE_TEST],
        }
        return {split: [self._utterance(file) for file in files[split]] for split in files}

    def _utterance(self, transcript: Path) -> Utterance:
        phones = _read_phones(transcript)
        audio = _audio_beside(transcript)
        return Utterance(
            id="/".join([*(part.lower() for part in transcript.parts[-4:-1]), transcript.stem.lower()]),
            path=str(audio),
            read=functools.partial(_read, audio, phones),
            text=FOLDS[self.num_phones](" ".join(phone.symbol for phone in phones)),
            speaker=_speaker(transcript),
            language="en",
        )


def _transcripts(folder: Path) -> Iterator[Path]:
    """The files .../TRAIN or TEST/DR1/FCJF0/SI1027.PHN but those of sentences that everybody reads."""
    for file in folder.rglob("*"):
        if file.suffix.lower() == ".phn" and not file.stem.lower().startswith(READ_BY_ALL):
            yield file


def _part(transcript: Path) -> str:
    return "".join(transcript.parts[-4:-3]).lower()


def _speaker(transcript: Path) -> str:
    return transcript.parts[-2].lower()


def _read_phones(transcript: Path) -> tuple[Phone, ...]:
    """Lines of first sample, last sample and symbol."""
    phones = []
    for number, line in enumerate(transcript.read_text().splitlines(), start=1):
        match line.split():
            case [start, end, symbol] if start.isdigit() and end.isdigit():
                phones.append(Phone(symbol, int(start), int(end)))
            case _:
                raise CorpusError(f"{transcript}:{number}: {line!r} should be two places in samples and a phone")
    return tuple(phones)


def _audio_beside(transcript: Path) -> Path:
    """SI1027.WAV of SI1027.PHN: NIST SPHERE as published, or what a copy has turned it into (SI1027.WAV.wav)."""
    beside = {file.name.lower(): file for file in transcript.parent.iterdir()}
    stem = transcript.stem.lower()
    names = (f"{stem}{suffix}" for suffix in (".wav", ".wav.wav", ".flac"))
    return next((beside[name] for name in names if name in beside), transcript.with_suffix(".WAV"))


def _read(audio: Path, phones: tuple[Phone, ...], max_seconds: float) -> Recording:
    if not audio.exists():
        raise AudioError(f"missing: there is a transcript, but no {audio.name} beside it")
    return Recording(read_audio(audio, max_seconds), phones)
