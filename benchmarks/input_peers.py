"""Other ways to get clips out of FLAC, for input_pipeline.py to measure beside ours: each runs in a process of its own.

    python benchmarks/input_peers.py PEER FOLDER WORKERS SECONDS

`torch` is what one writes with Hugging Face datasets, transformers' feature extractor and PyTorch's DataLoader,
`tf.data` what one writes with TensorFlow. Both decode with soundfile, as we do, and crop at random; neither can say
where it is, to go on from there. Prints hours of audio, seconds and processor seconds in JSON.
"""

import io
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

NUM_SAMPLES, BATCH = 250_000, 16


def crop(data: bytes) -> np.ndarray:
    """At most `NUM_SAMPLES` samples of a recording."""
    waveform, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    start = random.randint(0, max(len(waveform) - NUM_SAMPLES, 0))
    return waveform[start : start + NUM_SAMPLES]


def write(peer: str, recordings: Sequence[bytes], folder: Path) -> None:
    """The recordings in the files that a peer reads."""
    if peer == "torch":
        import datasets

        audio = [{"bytes": data, "path": None} for data in recordings]
        datasets.Dataset.from_dict({"audio": audio}).to_parquet(folder / "clips.parquet")
    else:
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(folder / "clips.tfrecord")) as writer:
            for data in recordings:
                writer.write(data)


def torch_batches(folder: Path, workers: int) -> Iterator[int]:
    """The samples of each batch, without padding."""
    import datasets
    import torch
    import transformers

    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    dataset = datasets.Dataset.from_parquet(str(folder / "clips.parquet"), cache_dir=folder)
    dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    dataset = dataset.with_transform(lambda rows: {"input_values": [crop(each["bytes"]) for each in rows["audio"]]})

    def collate(rows):
        clips = {"input_values": [row["input_values"] for row in rows]}
        return extractor.pad(clips, padding="max_length", max_length=NUM_SAMPLES, return_tensors="pt")

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
    )
    while True:
        for batch in loader:
            yield int(batch["attention_mask"].sum())


def tf_batches(folder: Path, workers: int) -> Iterator[int]:
    """The samples of each batch, without padding; `workers` are threads."""
    import tensorflow as tf

    def decode(data):
        waveform = tf.numpy_function(crop, [data], tf.float32)
        waveform.set_shape([None])
        return waveform, tf.size(waveform)

    records = tf.data.TFRecordDataset(str(folder / "clips.tfrecord")).shuffle(1_000).repeat()
    clips = records.map(decode, num_parallel_calls=workers)
    for _, num_samples in clips.padded_batch(BATCH, ([NUM_SAMPLES], [])).prefetch(2):
        yield int(num_samples.numpy().sum())


BATCHES: dict[str, Callable[[Path, int], Iterator[int]]] = {"torch": torch_batches, "tf.data": tf_batches}


def main(peer: str, folder: str, workers: str, seconds: str) -> None:
    """Measures one peer."""
    from input_pipeline import measure

    print(json.dumps(measure(BATCHES[peer](Path(folder), int(workers)), float(seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
