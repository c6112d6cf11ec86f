"""The tiny model fine-tuned with CTC on minutes of transcripts: w2v2 train experiments.demo.finetune

Hardware  two CPU cores, about a minute. Run experiments.demo.pretrain first.
Expect    a far lower word error rate than experiments.demo.scratch on the same transcripts.
"""

from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.data.pipeline import Transcribed
from w2v2_jax.data.records import Corpus
from w2v2_jax.data.text import LETTERS
from w2v2_jax.experiment import Experiment
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel
from w2v2_jax.optimizers import Adam, TriStage
from w2v2_jax.presets import tiny
from w2v2_jax.tasks import CTCFinetuning
from w2v2_jax.warm_start import WarmStart


def experiment(data_dir: str = default_data_dir(), pretrained: str = "runs/demo_pretrain") -> Experiment:
    """Fine-tuning on five minutes of the corpus `espeak_demo` under `data_dir`."""
    labelled = Corpus("espeak_demo", "labelled", data_dir)
    buckets = PercentileBuckets(samples_per_batch=160_000, num_buckets=2, batch_multiple=1)
    return Experiment(
        name="demo_finetune",
        task=CTCFinetuning(
            model=CTCModel(tiny().encoder, num_labels=len(LETTERS)),
            vocabulary=LETTERS,
            time_mask=MaskSpans(prob=0.3, length=5, min_spans=0),
            channel_mask=MaskSpans(prob=0.1, length=8, min_spans=0),
        ),
        train_data=Transcribed(labelled, LETTERS, buckets, normalise=True),
        valid_data=Transcribed(Corpus("espeak_demo", "dev", data_dir), LETTERS, buckets, normalise=True),
        optimizer=Adam(TriStage(peak=3e-3), eps=1e-8, weight_decay=0.0),
        num_steps=600,
        init_from=WarmStart(pretrained),
        log_every=10,
        eval_every=100,
        save_every=600,
    )
