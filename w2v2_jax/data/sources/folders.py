"""A folder of audio files, at any depth, as a corpus without transcripts."""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path

from w2v2_jax.data.audio import Recording, Utterance, read_audio
from w2v2_jax.data.corpora import CorpusError

# Files that hold speech, readable or not: what cannot be read belongs into the rejects report.
SUFFIXES = frozenset(
    {
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".au",
        ".caf",
        ".sph",
        ".w64",
        ".rf64",
        ".m4a",
        ".mp4",
        ".aac",
        ".wma",
        ".webm",
        ".amr",
        ".pcm",
        ".raw",
        ".sln",
        ".sln16",
        ".g722",
        ".gsm",
        ".ulaw",
        ".alaw",
        ".vox",
    }
)


@dataclasses.dataclass(frozen=True)
class AudioFolder:
    """Every audio file under `path`; `dev` gets about `valid_percent` of them, chosen by the hash of their names."""

    path: str
    name: str
    valid_percent: float = 1.0

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The files as `train` and `dev`; adding files moves none from one to the other."""
        root = Path(self.path)
        if not root.is_dir():
            raise CorpusError(f"there is no folder {root}; give the folder that holds the audio files")
        files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise CorpusError(f"{root} has no audio file at any depth; files such as .wav, .flac or .mp3 are expected")
        names = [file.relative_to(root).as_posix() for file in files]
        utterances = [Utterance(name, str(root / name), functools.partial(read_file, root / name)) for name in names]
        in_dev = [zlib.crc32(name.encode()) % 10_000 < 100 * self.valid_percent for name in names]
        return {
            "train": [utterance for utterance, dev in zip(utterances, in_dev, strict=True) if not dev],
            "dev": [utterance for utterance, dev in zip(utterances, in_dev, strict=True) if dev],
        }


def read_file(path: Path, max_seconds: float) -> Recording:
    """The recording in an audio file."""
    return Recording(read_audio(path, max_seconds))
