import numpy as np
import pytest
from planted import flac, noise, record, scanned, sound_corpus, wrong

from w2v2_jax.preflight.audio_checks import audio_checks


def clipping(share, num_samples=8_000):
    samples = (noise("clipping", num_samples) * 2**15).astype(np.int16)
    samples[: round(share * num_samples)] = 2**15 - 1
    return flac(samples)


SILENT = np.zeros(8_000, np.int16)
DEFECTS = {
    "undecodable: text": ("undecodable", {"audio": b"hello"}),
    "undecodable: cut": ("undecodable", {"audio": flac(noise("x"))[:3_000]}),
    "wrong length: longer": ("wrong length", {"num_samples": 8_001}),
    "wrong length: shorter": ("wrong length", {"audio": flac(noise("x", 7_999))}),
    "rate": ("not 16 kHz mono FLAC", {"audio": flac(noise("x"), rate=8_000)}),
    "channels": ("not 16 kHz mono FLAC", {"audio": flac(np.stack([noise("x"), noise("y")], axis=1))}),
    "format": ("not 16 kHz mono FLAC", {"audio": flac(noise("x"), kind="WAV")}),
    "short": ("shorter than a frame", {"audio": flac(noise("x", 399)), "num_samples": 399}),
    "silent": ("silent", {"audio": flac(SILENT)}),
    "offset": ("silent", {"audio": flac(SILENT + 1_000)}),
    "clipped": ("clipped", {"audio": clipping(0.02)}),
}


def test_a_sound_corpus_has_nothing_wrong():
    checks = audio_checks(scanned(sound_corpus()))
    assert wrong(checks) == {}
    assert {check.verdict for check in checks} == {"sound"} and {check.number for check in checks} == {0}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize(("split", "index"), [("train", 3), ("test", 0)])
def test_a_defect_is_found_once_with_its_utterance_and_nothing_else_is(defect, split, index):
    name, fields = DEFECTS[defect]
    corpus = sound_corpus()
    corpus[split][index] |= fields
    found = wrong(audio_checks(scanned(corpus)))
    assert list(found) == [name]
    [case] = found[name]
    assert case.startswith(f"{split}/{split}{index}: ")


def test_as_many_are_counted_as_were_planted():
    corpus = sound_corpus()
    for index in (0, 2, 5):
        corpus["train"][index]["audio"] = flac(SILENT)
    check = next(check for check in audio_checks(scanned(corpus)) if check.name == "silent")
    assert check.number == len(check.cases) == 3


def test_a_few_samples_at_full_scale_are_no_clipping_and_the_worst_comes_first():
    corpus = {
        "train": [record(f"u{i}") | {"audio": clipping(share)} for i, share in enumerate((0.001, 0.01, 0.3, 0.0))]
    }
    assert wrong(audio_checks(scanned(corpus))) == {
        "clipped": ["train/u2: 30.0% of samples at full scale", "train/u1: 1.0% of samples at full scale"]
    }
