import pytest

pytest.importorskip("espeakng_loader")

from w2v2_jax.data.sources.espeak import SAMPLE_RATE, speak_lines


def test_a_faster_rate_speaks_the_same_phones_in_less_time():
    (slow, slow_phones), (fast, fast_phones) = speak_lines(
        [("gmw/en", 50, 120, "the old boat"), ("gmw/en", 50, 240, "the old boat")]
    )
    assert [name for name, _ in slow_phones] == [name for name, _ in fast_phones]
    assert 0.3 < len(fast) / len(slow) < 0.8


def test_phones_start_in_order_within_the_samples():
    ((samples, phones),) = speak_lines([("gmw/en-US+f1", 50, 140, "the old boat")])
    starts = [start for _, start in phones]
    assert starts == sorted(starts)
    assert starts[-1] <= len(samples) // 2
    assert 0.5 < len(samples) / 2 / SAMPLE_RATE < 2


def test_an_unknown_voice_is_an_error():
    with pytest.raises(RuntimeError, match="has no voice gmw/nonesuch"):
        speak_lines([("gmw/nonesuch", 50, 140, "the old boat")])
