"""Time and peak memory of recognising and aligning recordings of hours, each in a process of its own.

    python benchmarks/long_recordings.py CHECKPOINT DATASET/SPLIT --lm 4gram.arpa [--data-dir DIR]

The utterances of the corpus are said over and over in one FLAC file, whose transcript is known for that. Peaks are what
the kernel reports as the process's resident set. Writes benchmarks/results/long_recordings.md.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
from report import RESULTS, publish

from w2v2_jax.commands.terminal import dataset
from w2v2_jax.data.audio import SAMPLE_RATE, decode_record
from w2v2_jax.data.corpora import Split, default_data_dir, open_split

CASES = {"transcribe": (10, 120), "transcribe with a 4-gram": (10, 120), "align": (10, 60)}
"""Minutes of recordings."""


def main() -> None:
    """Measures all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("dataset", type=dataset)
    parser.add_argument("--lm", required=True)
    parser.add_argument("--data-dir", default=default_data_dir())
    options = parser.parse_args()
    records = open_split(*options.dataset, options.data_dir)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        audio, said = Path(folder) / "recording.flac", Path(folder) / "said.txt"
        commands = {
            "transcribe": ("transcribe", options.checkpoint, audio),
            "transcribe with a 4-gram": ("transcribe", options.checkpoint, audio, "--lm", options.lm, "--workers", "1"),
            "align": ("align", options.checkpoint, audio, said),
        }
        for case, lengths in CASES.items():
            for minutes in lengths:
                seconds = record_for(records, minutes * 60, audio, said)
                spent, peak = run(*commands[case])
                measured = f"{spent:.0f}", f"{spent / seconds:.3f}", f"{peak / 1e9:.2f}"
                rows.append((case, f"{minutes} min", *measured))
                print(*rows[-1], flush=True)
    headers = ("command", "recording", "seconds", "real-time factor", "peak memory, GB")
    text = (
        "Seconds have the start of Python and all compilations in them. A search is done by a process of its own, "
        "with a beam of 500; the peak is that of the larger process."
    )
    publish(RESULTS / "long_recordings.md", "Long recordings", text, headers, rows)


def record_for(records: Split, seconds: float, audio: Path, said: Path) -> float:
    """Writes a recording of `seconds` and until the end of a sentence, and what is said in it; how long it is."""
    texts, num_samples = [], 0
    with soundfile.SoundFile(audio, "w", SAMPLE_RATE, 1) as file:
        for place in itertools.cycle(range(len(records))):
            if num_samples >= seconds * SAMPLE_RATE:
                break
            waveform = decode_record(records[place])
            file.write(waveform)
            texts.append(records[place]["text"])
            num_samples += len(waveform)
    said.write_text(" ".join(texts))
    return num_samples / SAMPLE_RATE


def run(*arguments: str | Path) -> tuple[float, int]:
    """Wall-clock seconds and peak resident set in bytes of a command of `w2v2`."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "w2v2_jax.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"w2v2 {' '.join(map(str, arguments))} failed")
    return time.monotonic() - start, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
