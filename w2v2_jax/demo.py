"""`w2v2 demo`: from raw audio to a word error rate in minutes, with and without pretraining.

Builds a corpus of synthetic speech, pretrains a tiny model on its sound alone, fine-tunes it on a few minutes of
transcripts beside the same network without pretraining, and shows how well both transcribe speakers and sentences
that they never heard.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.demo import finetune, pretrain, scratch
from w2v2_jax.analysis.plots import FINETUNING_CURVES, PRETRAINING_CURVES, plot_curves, plot_utterance
from w2v2_jax.batches import AudioBatch, example_keys
from w2v2_jax.data.audio import Phone, decode_flac, normalise
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.records import Corpus
from w2v2_jax.data.sources.synthetic import ESpeak
from w2v2_jax.evaluation import WORDS, Report, evaluate_recogniser
from w2v2_jax.metrics import read_rows
from w2v2_jax.overrides import override
from w2v2_jax.recognition import Recogniser, load_recogniser
from w2v2_jax.step import TrainState
from w2v2_jax.tasks import Pretraining
from w2v2_jax.train import train


class Size(NamedTuple):
    """How much of everything: minutes of audio to pretrain on and to test with, steps of both kinds of training.

    `num_buckets` is how many shapes of batches fine-tuning compiles. Programs that are not `optimised` compile sooner
    and run at a third of the speed.
    """

    train_minutes: float
    test_minutes: float
    pretrain_steps: int
    finetune_steps: int
    num_buckets: int
    optimised: bool


FULL = Size(60.0, 5.0, pretrain_steps=1_200, finetune_steps=600, num_buckets=2, optimised=True)
QUICK = Size(5.0, 1.0, pretrain_steps=40, finetune_steps=10, num_buckets=1, optimised=False)
"""Shows that everything runs; too short to learn anything."""


RUNS = {"pretrained": "finetune", "from scratch": "scratch"}


def run(workdir: Path, size: Size) -> dict[str, Report]:
    """Everything, into `workdir`; what was done before is not done again. Returns both models' error rates."""
    began = time.monotonic()
    console = Console()
    data_dir = str(workdir / "data")
    jax.config.update("jax_disable_most_optimizations", not size.optimised)
    # Both fine-tunings are one program: compiled for the first, found again for the second.
    jax.config.update("jax_compilation_cache_dir", str((workdir / "programs").absolute()))
    _tell(console, "1. Synthetic speech", "eSpeak NG speaks; test speakers and sentences are in no other part.")
    corpus = _corpus(size)
    prepare(corpus, data_dir)
    _tell(console, "2. Pretraining", "Sound alone: find each hidden frame's code among 50 distractors; chance is 0.02.")
    pretraining = override(pretrain.experiment(data_dir), _steps(size.pretrain_steps))
    # Batches this small are for one device, however many there are.
    devices = jax.devices()[:1]
    pretrained = train(pretraining, workdir / "pretrain", devices=devices)
    _tell(console, "3. Fine-tuning", "Five minutes of transcripts teach the pretrained network its letters.")
    finetuning = finetune.experiment(data_dir, pretrained=str(workdir / "pretrain"))
    train(override(finetuning, _steps(size.finetune_steps) | _buckets(size)), workdir / "finetune", devices=devices)
    _tell(console, "4. From scratch", "The same transcripts and steps without pretraining.")
    from_scratch = scratch.experiment(data_dir)
    train(override(from_scratch, _steps(size.finetune_steps) | _buckets(size)), workdir / "scratch", devices=devices)
    _tell(console, "5. Test", "Both write down speakers and sentences that neither has heard.")
    test = Corpus(corpus.name, "test", data_dir).records()
    recognisers = {name: load_recogniser(workdir / run) for name, run in RUNS.items()}
    reports = {name: evaluate_recogniser(recogniser, test) for name, recogniser in recognisers.items()}
    console.print(_rates(reports), _transcripts(reports))
    heard = reports["pretrained"].utterances[0].hypothesis
    for figure in _draw(workdir, pretraining.task, pretrained, recognisers["pretrained"], test[0], heard):
        console.print(f"Figure: {figure}", soft_wrap=True)
    console.print(f"Done in {(time.monotonic() - began) / 60:.1f} minutes. Now say something yourself:")
    console.print(f"w2v2 transcribe {workdir / 'finetune'} YOUR.wav", soft_wrap=True)
    return reports


def _corpus(size: Size) -> ESpeak:
    return ESpeak(
        "espeak_demo",
        train_minutes=size.train_minutes,
        labelled_minutes=5.0,
        dev_minutes=1.0,
        test_minutes=size.test_minutes,
        num_speakers=16,
        lexicon=0.12,
    )


def _steps(count: int) -> dict[str, int]:
    return {"num_steps": count, "eval_every": max(1, count // 5), "save_every": count}


def _buckets(size: Size) -> dict[str, int]:
    return {f"{data}.buckets.num_buckets": size.num_buckets for data in ("train_data", "valid_data")}


def _tell(console: Console, title: str, text: str) -> None:
    console.rule(f"[bold]{title}")
    console.print(Text(text, "dim"))


def _rates(reports: dict[str, Report]) -> Table:
    table = Table(title="Error rates on synthetic speech, with 95 % intervals", title_justify="left")
    table.add_column("")
    for name in reports:
        table.add_column(name, justify="right")
    for unit in WORDS:
        scores = [report.rates[unit] for report in reports.values()]
        table.add_row(f"errors in {unit}", *(f"{s.rate:.1%}  ({s.low:.1%} to {s.high:.1%})" for s in scores))
    utterances = next(iter(reports.values())).utterances
    table.caption = f"{len(utterances)} utterances; greedy decoding, no language model"
    return table


def _transcripts(reports: dict[str, Report], count: int = 5) -> Table:
    table = Table("", "transcript", title=f"The first {count} utterances", title_justify="left", show_lines=False)
    for rows in list(zip(*(report.utterances for report in reports.values()), strict=True))[:count]:
        table.add_row("[dim]spoken", Text(rows[0].reference, "dim"))
        for name, utterance in zip(reports, rows, strict=True):
            table.add_row(name, Text(utterance.hypothesis))
        table.add_section()
    return table


def _draw(
    workdir: Path,
    task: Pretraining,
    state: TrainState,
    recogniser: Recogniser,
    record: dict[str, Any],
    hypothesis: str,
) -> list[Path]:
    """The figures: curves of all runs, and the utterance `record`, which the recogniser took for `hypothesis`."""
    figures = [workdir / name for name in ("pretraining.png", "finetuning.png", "utterance.png")]
    rows = {run: read_rows(workdir / run / "metrics.jsonl") for run in ("pretrain", *RUNS.values())}
    plot_curves({"pretraining": rows["pretrain"]}, PRETRAINING_CURVES, figures[0], task.num_distractors)
    plot_curves({name: rows[run] for name, run in RUNS.items()}, FINETUNING_CURVES, figures[1])
    waveform = normalise(decode_flac(record["audio"]))
    batch = AudioBatch(jnp.asarray(waveform)[None], jnp.array([len(waveform)]))
    masked, codes = mask_and_codes(task, state, batch)
    logits = jax.jit(recogniser.task.logits)(recogniser.params, batch)[0]
    phones = record["phones"]
    plot_utterance(
        figures[2],
        waveform,
        masked,
        codes,
        posteriors=np.asarray(jax.nn.softmax(logits, axis=-1)),
        labels=recogniser.task.vocabulary.symbols,
        reference=record["text"],
        hypothesis=hypothesis,
        phones=[Phone(*phone) for phone in zip(phones["symbol"], phones["start"], phones["end"], strict=True)],
    )
    return figures


def mask_and_codes(
    task: Pretraining, state: TrainState, batch: AudioBatch
) -> tuple[Bool[np.ndarray, " frame"], Int[np.ndarray, "frame group"]]:
    """For a batch of one clip: a mask as in pretraining, and the code of every frame without noise."""

    @jax.jit
    def look(params: PyTree, key: Key[Array, ""]):
        draws = task.sample(example_keys(key, 1), batch, noise_scale=0.0)
        num_frames = draws.masked.shape[1]
        every_frame = draws._replace(
            targets=jnp.arange(num_frames)[None],
            noise=jnp.zeros((1, num_frames, *draws.noise.shape[2:])),
        )
        return draws.masked[0], task.apply(params, batch, every_frame, 1.0).quantizer.codes[0]

    return jax.device_get(look(state.params, state.key))
