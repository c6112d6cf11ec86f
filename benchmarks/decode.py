"""Decoders side by side: milliseconds an utterance, real-time factor and word error rate, pyctcdecode beside ours.

    pip install '.[decode]' && pip install --no-deps pyctcdecode pygtrie    # the latter pins an old NumPy
    python benchmarks/decode.py CHECKPOINT DATASET/SPLIT --lm 4gram.arpa [--data-dir DIR]

Emissions are computed once; then each decoder gets all of them, one utterance after the other, in one process. All use
the same weights, for pyctcdecode times ln 10, as its model is in natural logarithms; all else of it is by default.
Writes benchmarks/results/decode.md.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from report import RESULTS, publish

from w2v2_jax.commands.terminal import dataset
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.data.corpora import default_data_dir, open_split
from w2v2_jax.data.records import columns
from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.greedy import best_path
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import NGramFile, arpa_words
from w2v2_jax.decoding.lexicon import lexicon_of_words
from w2v2_jax.decoding.prefix_beam import prefix_beam_search
from w2v2_jax.decoding.scoring import count_words, total
from w2v2_jax.evaluation import store_emissions
from w2v2_jax.recognition import load_recogniser

Decode = Callable[[np.ndarray], str]
LENGTH_STEP = 256


def main() -> None:
    """Times all decoders on one corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("dataset", type=dataset)
    parser.add_argument("--lm", type=Path, required=True)
    parser.add_argument("--lm-weight", type=float, default=2.0)
    parser.add_argument("--word-score", type=float, default=-1.0)
    parser.add_argument("--data-dir", default=default_data_dir())
    options = parser.parse_args()
    recogniser = load_recogniser(options.checkpoint)
    weights = Weights(options.lm_weight, options.word_score)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        records = open_split(*options.dataset, options.data_dir)
        emissions = store_emissions(recogniser, records, Path(folder))
        texts, num_samples = columns(records, "text", "num_samples")
        seconds, references = num_samples.sum() / SAMPLE_RATE, texts[emissions.places].tolist()
        clips = list(emissions)
    for name, decode in decoders(recogniser.vocabulary, options.lm, weights):
        spent, rate = measure(decode, clips, references)
        rows.append((name, f"{spent / len(clips) * 1e3:.1f}", f"{spent / seconds:.4f}", f"{rate:.1%}"))
        print(*rows[-1], flush=True)
    text = (
        f"{len(clips)} utterances of {seconds / len(clips):.1f} s on average, one after the other in one process "
        f"on one core (prefix beam search: what XLA takes); LM weight {weights.lm_weight:g}, word score "
        f"{weights.word_score:g}. What loads and compiles comes before."
    )
    headers = ("decoder", "ms an utterance", "real-time factor", "word error rate")
    publish(RESULTS / "decode.md", "Decoders", text, headers, rows)


def decoders(vocabulary: Vocabulary, lm: Path, weights: Weights) -> Iterator[tuple[str, Decode]]:
    """Ours by their beams, then pyctcdecode's where it is installed."""
    yield "greedy", lambda log_probs: vocabulary.decode(best_path(log_probs, vocabulary.blank_id).labels)
    for beam in (10, 100):
        yield f"prefix beam search, {beam}, no model", prefix_beam(vocabulary, beam)
    words = list(arpa_words(lm))
    lexicon = lexicon_of_words(words, vocabulary)
    for beam in (50, 100, 500, 1500):
        search = BeamSearch(vocabulary, NGramFile(lm), lexicon, weights=weights, beam=beam)
        yield f"lexicon and 4-gram, {beam}", lambda log_probs, search=search: search.decode(log_probs)[0].text
    try:
        import pyctcdecode
    except ImportError:
        print("pyctcdecode is not installed: left out")
        return
    # Its blank is the empty symbol, its word end a space; what stands for nothing gets letters that no word has.
    labels = [
        chr(0xE000 + number) if symbol in vocabulary.specials else symbol
        for number, symbol in enumerate(vocabulary.symbols)
    ]
    labels[vocabulary.blank_id], labels[vocabulary.word_end_id] = "", " "
    theirs = pyctcdecode.build_ctcdecoder(
        labels, str(lm), unigrams=words, alpha=weights.lm_weight * math.log(10), beta=weights.word_score
    )
    for beam in (50, 100, 500):
        yield (
            f"pyctcdecode with the same 4-gram, {beam}",
            lambda log_probs, beam=beam: theirs.decode(log_probs, beam_width=beam),
        )


def prefix_beam(vocabulary: Vocabulary, beam: int) -> Decode:
    """Prefix beam search of one clip, padded so that few shapes are compiled."""

    def decode(log_probs: np.ndarray) -> str:
        length = -(-len(log_probs) // LENGTH_STEP) * LENGTH_STEP
        padded = np.zeros((1, length, log_probs.shape[1]), np.float32)
        padded[0, : len(log_probs)] = log_probs
        num_frames = np.array([len(log_probs)], np.int32)
        found = jax.device_get(prefix_beam_search(padded, num_frames, beam=beam, blank=vocabulary.blank_id))
        return vocabulary.decode(found.labels[0, 0, : found.num_labels[0, 0]])

    return decode


def measure(decode: Decode, clips: Sequence[np.ndarray], references: Sequence[str]) -> tuple[float, float]:
    """Seconds for all clips, and the word error rate."""
    for clip in {-(-len(clip) // LENGTH_STEP): clip for clip in clips}.values():
        decode(clip)  # loads, and compiles each shape
    start = time.perf_counter()
    hypotheses = [decode(clip) for clip in clips]
    spent = time.perf_counter() - start
    counts = total([count_words(*pair) for pair in zip(references, hypotheses, strict=True)])
    return spent, counts.errors / counts.reference_length


if __name__ == "__main__":
    main()
