import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
import soundfile
from checkpointed import coarse_task, params_of, save

from w2v2_jax.batches import AudioBatch
from w2v2_jax.data.audio import AudioError, normalise
from w2v2_jax.data.chunks import Chunking
from w2v2_jax.decoding.greedy import collapse, greedy
from w2v2_jax.experiment import DevSet, DevSets
from w2v2_jax.recognition import NotARecogniserError, Recogniser, load_recogniser

TASK = coarse_task()
RECOGNISER = Recogniser(TASK, nn.unbox(jax.jit(TASK.init)(jax.random.key(0))), normalise=False)


def noise(num_samples, seed=0):
    return np.random.default_rng(seed).normal(size=num_samples).astype(np.float32)


def text_alone(waveform):
    """By the task's own methods, without padding, batches or the words' times."""
    batch = AudioBatch(jnp.array(waveform)[None], jnp.array([len(waveform)]))
    found = collapse(jax.jit(TASK.logits)(RECOGNISER.params, batch).argmax(axis=-1), TASK.num_frames(batch))
    return TASK.vocabulary.decode(np.asarray(found.labels[0, : int(found.num_labels[0])]))


def test_clips_of_many_lengths_come_back_in_order_each_as_if_it_were_alone():
    waveforms = [noise(n, seed=n) for n in (7000, 40_000, 325)]
    transcripts = list(RECOGNISER.transcribe(waveforms))
    assert [transcript.text for transcript in transcripts] == [text_alone(waveform) for waveform in waveforms]
    assert len({transcript.text for transcript in transcripts}) > 1
    assert [transcript.seconds for transcript in transcripts] == [len(waveform) / 16_000 for waveform in waveforms]


def test_a_recogniser_that_normalises_does_not_hear_loudness_and_offset():
    waveform = noise(5000)
    recogniser = dataclasses.replace(RECOGNISER, normalise=True)
    quiet, as_it_is = recogniser.transcribe([0.01 * waveform + 0.3, waveform])
    (expected,) = RECOGNISER.transcribe([normalise(waveform)])
    assert as_it_is == expected
    # The formula adds 1e-5 to the variance, which is a tenth of that of the quiet clip.
    assert quiet.score == pytest.approx(expected.score, rel=0.05)


def test_few_shapes_are_compiled_for_many_lengths():
    recogniser = Recogniser(TASK, RECOGNISER.params, normalise=False)
    list(recogniser.transcribe(noise(n) for n in range(2000, 82_000, 10_000)))
    assert recogniser._log_probs._cache_size() == 2


def test_a_waveform_without_a_frame_is_an_error_that_names_its_place():
    with pytest.raises(AudioError, match="waveform 1 has 324 samples; a frame needs 325"):
        list(RECOGNISER.transcribe([noise(500), noise(324)]))


def test_other_parameters_have_another_fingerprint():
    other = jax.tree.map(lambda x: x, RECOGNISER.params)
    assert dataclasses.replace(RECOGNISER, params=other).fingerprint == RECOGNISER.fingerprint
    changed = jax.tree.map(lambda x: x + 1, other)
    assert dataclasses.replace(RECOGNISER, params=changed).fingerprint != RECOGNISER.fingerprint


def test_nothing_to_transcribe_gives_nothing():
    assert list(RECOGNISER.transcribe([])) == []


def test_files_of_other_rates_are_resampled_and_bad_ones_do_not_stop_the_others(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * noise(8000), 16_000)
    soundfile.write(tmp_path / "b.flac", 0.1 * noise(8000), 8_000)
    (tmp_path / "bad.wav").write_text("not audio")
    files = [tmp_path / "a.wav", tmp_path / "bad.wav", tmp_path / "b.flac", tmp_path / "missing.wav"]
    results = dict(RECOGNISER.transcribe_files(files))
    assert list(results) == files
    assert isinstance(results[files[1]], AudioError) and isinstance(results[files[3]], AudioError)
    assert results[files[0]].seconds == 0.5 and results[files[2]].seconds == 1.0


def test_a_run_gives_its_newest_checkpoint_and_a_step_is_found_by_its_folder(tmp_path):
    experiment = micro.finetuning(valid_data=micro.Normalised())
    save(tmp_path, experiment, step=1, seed=1)
    save(tmp_path, experiment, step=2, seed=2)
    newest, first = load_recogniser(tmp_path), load_recogniser(tmp_path / "checkpoints" / "1")
    assert newest.task == experiment.task and newest.normalise
    for recogniser, seed in ((newest, 2), (first, 1)):
        jax.tree.map(np.testing.assert_array_equal, recogniser.params, params_of(experiment.task, seed))


def test_a_checkpoint_of_pretraining_is_named_with_what_to_do(tmp_path):
    with pytest.raises(NotARecogniserError, match=r"checkpoint of Pretraining.*fine-tune it .*WarmStart"):
        load_recogniser(save(tmp_path, micro.pretraining(valid_data=micro.Normalised())))


def test_data_that_does_not_say_whether_it_is_normalised_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="give its class a field `normalise`"):
        load_recogniser(save(tmp_path, micro.finetuning()))


def test_several_sets_say_together_whether_they_are_normalised(tmp_path):
    sets = DevSets(tuple(DevSet(name, micro.Normalised()) for name in "ab"))
    assert load_recogniser(save(tmp_path / "same", micro.finetuning(valid_data=sets))).normalise
    sets = DevSets((*sets.sets, DevSet("c", micro.Normalised(normalise=False))))
    with pytest.raises(ValueError, match="or says both"):
        load_recogniser(save(tmp_path / "both", micro.finetuning(valid_data=sets)))


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*/nothing"):
        load_recogniser(tmp_path / "nothing")


def test_a_long_file_is_recognised_in_chunks_whose_emissions_are_joined(tmp_path):
    recogniser = dataclasses.replace(RECOGNISER)
    waveform = (0.1 * noise(40_000)).clip(-0.9, 0.9)
    soundfile.write(tmp_path / "long.wav", waveform, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", waveform[:9000], 16_000, subtype="FLOAT")
    files = [tmp_path / "long.wav", tmp_path / "missing.wav", tmp_path / "short.wav"]
    chunking = Chunking(1.0, 0.2)
    (_, found), (_, missing), (_, short) = recogniser.transcribe_files(files, chunking)
    parts = list(chunking.cut([waveform], recogniser.hop))
    assert len(parts) > 2
    emissions = recogniser.emissions([part.waveform for part in parts])
    joined = np.concatenate([each[part.first : part.stop] for part, each in zip(parts, emissions, strict=True)])
    expected = next(greedy([joined], TASK.vocabulary))
    assert found.text == TASK.vocabulary.decode(expected.labels)
    assert found.score == pytest.approx(expected.score)
    assert found.seconds == 2.5 and short.seconds == 9000 / 16_000 and isinstance(missing, AudioError)
