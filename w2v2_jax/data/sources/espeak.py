"""Speaks lines with eSpeak NG, as a program of its own: JSON lines in, samples and phones out.

Run by `synthetic.py` once for every batch of lines, because the engine keeps state between utterances and only a
fresh process with a fixed order speaks the same samples again. It also keeps the GPL engine out of every other process.
Standard input is a JSON list of [voice, pitch, rate, text]; standard output a pickled list, a line each, of
(16-bit samples at 22,050 Hz as bytes, list of (phone, first sample)).
"""

import ctypes
import json
import pickle
import sys

SAMPLE_RATE = 22_050

# Names and values of espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS = 0x0001
INITIALIZE_DONT_EXIT = 0x8000
PARAMETER_RATE = 1
PARAMETER_PITCH = 3
CHARS_UTF8 = 1
EVENT_LIST_TERMINATED = 0
EVENT_PHONEME = 7


class Event(ctypes.Structure):
    """`espeak_EVENT`; `name` is the member of its union that a phoneme event fills in."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def speak_lines(lines: list[tuple[str, int, int, str]]) -> list[tuple[bytes, list[tuple[str, int]]]]:
    """The samples and phones of every (voice, pitch, rate, text), spoken in this order."""
    import espeakng_loader

    engine = ctypes.CDLL(espeakng_loader.get_library_path())
    options = INITIALIZE_PHONEME_EVENTS | INITIALIZE_DONT_EXIT
    rate = engine.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), options)
    if rate != SAMPLE_RATE:
        raise RuntimeError(f"eSpeak NG started at {rate} Hz instead of {SAMPLE_RATE}; reinstall espeakng-loader")
    samples, phones = bytearray(), []

    @Callback
    def collect(waveform, num_samples: int, events) -> int:
        if num_samples > 0:
            samples.extend(ctypes.string_at(waveform, 2 * num_samples))
        index = 0
        while events[index].type != EVENT_LIST_TERMINATED:
            if events[index].type == EVENT_PHONEME:
                phones.append((events[index].name.decode(), events[index].sample))
            index += 1
        return 0

    engine.espeak_SetSynthCallback(collect)
    spoken = []
    for voice, pitch, words_per_minute, text in lines:
        if engine.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice}")
        engine.espeak_SetParameter(PARAMETER_PITCH, pitch, 0)
        engine.espeak_SetParameter(PARAMETER_RATE, words_per_minute, 0)
        encoded = text.encode() + b"\0"
        engine.espeak_Synth(encoded, len(encoded), 0, 0, 0, CHARS_UTF8, None, None)
        engine.espeak_Synchronize()
        spoken.append((bytes(samples), list(phones)))
        samples.clear()
        phones.clear()
    return spoken


if __name__ == "__main__":
    pickle.dump(speak_lines(json.load(sys.stdin)), sys.stdout.buffer)
