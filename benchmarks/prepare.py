"""How much audio a core prepares, and what the 60,000 hours of Libri-Light would take at that rate.

    python benchmarks/prepare.py [--minutes N]

Speaks N minutes (60) with eSpeak NG as utterances of 12 to 17 s, writes them in the layout of LibriSpeech and prepares
that in one process. Processor seconds count, so that other work on the machine disturbs little. Files are in the page
cache: what a disk or a bucket adds is not in it. Writes benchmarks/results/prepare.md. Needs the extra `demo`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import soundfile
from input_pipeline import JoinedSentences
from report import RESULTS, publish

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.data.prepare import Processes, prepare
from w2v2_jax.data.sources.librispeech import LibriSpeech

HOURS = 60_000


def main() -> None:
    """Measures and extrapolates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        write_librispeech(Path(work) / "LibriSpeech", options.minutes)
        start = time.process_time()
        source = LibriSpeech(work)
        report = prepare(source, Path(work) / "data", progress=False, max_seconds=40.0, runner=Processes(1))
        spent = time.process_time() - start
    [(split, size)] = report.splits.items()
    hours, num_bytes = size.seconds / 3600, sum(shard["num_bytes"] for shard in report.shards[split].values())
    rate, per_hour = hours / spent, num_bytes / hours
    work, size_of_all = f"{HOURS / rate / 3600:.0f} h of a core", f"{HOURS * per_hour / 1e12:.1f} TB"
    rows = [
        ("measured", f"{hours:.2f}", f"{spent:.1f} s of a core", f"{num_bytes / 1e6:.0f} MB"),
        ("Libri-Light, at that rate", f"{HOURS:,}", work, size_of_all),
    ]
    text = f"{size.kept} utterances of synthetic speech, {rate:.2f} h of audio a core-second."
    publish(RESULTS / "prepare.md", "Preparing a corpus", text, ("", "hours of audio", "work", "size"), rows)


def write_librispeech(folder: Path, minutes: float) -> None:
    """A copy of LibriSpeech with one chapter."""
    chapter = folder / "train-clean-100" / "1" / "1"
    chapter.mkdir(parents=True)
    lines = []
    for number, utterance in enumerate(JoinedSentences(minutes).splits()["train"]):
        name = f"1-1-{number:04}"
        soundfile.write(chapter / f"{name}.flac", utterance.read(60.0).waveform, SAMPLE_RATE)
        lines.append(f"{name} {utterance.text}\n")
    (chapter / "1-1.trans.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
