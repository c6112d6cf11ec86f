"""What all of the paper's fine-tuning recipes on LibriSpeech share (section 4.3; fairseq's config/finetuning).

Batch     1600 s of audio a step (8 x 3.2M samples), padding included.
Schedule  a tenth of the steps up, four tenths flat, half down to 5 % (exponentially; the paper says linearly).
Masks     as in pretraining, and spans of 64 channels; probabilities are the paper's times the span length.
Model     pretraining's without its dropouts, but 0.1 inside the feed-forward layers; the feature encoder stays fixed;
          until `frozen_steps` the head alone learns. The paper freezes for 10k steps always, fairseq's BASE recipes
          for 100 h and 960 h do not.
Expect    word error rates without a language model, dev-clean/dev-other, from table 9. None was run by us.
"""

import dataclasses

from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.pipeline import Transcribed
from w2v2_jax.data.records import Corpus, RecordSource
from w2v2_jax.data.text import LETTERS
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel, Wav2Vec2
from w2v2_jax.optimizers import Adam, Freeze, TriStage
from w2v2_jax.overrides import override
from w2v2_jax.tasks import CTCFinetuning
from w2v2_jax.train import Experiment
from w2v2_jax.warm_start import WarmStart


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What differs between the amounts of transcripts."""

    num_steps: int
    peak: float
    mask_prob: float
    channel_prob: float
    frozen_steps: int
    layer_drop: float = 0.1
    samples_per_batch: int = 25_600_000


def recipe(
    name: str, encoder: Wav2Vec2, pretrained: str, source: RecordSource, normalise: bool, numbers: Numbers
) -> Experiment:
    """Fine-tunes `encoder` from the run in the folder `pretrained` on the transcripts of `source`."""
    layer = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.1}
    encoder = override(
        encoder,
        {
            **{f"context_network.layer.{key}": value for key, value in layer.items()},
            "context_network.dropout": 0.0,
            "context_network.layer_drop": numbers.layer_drop,
            "input_dropout": 0.0,
            "feature_gradient_scale": 0.0,
            "dtype": "bfloat16",
        },
    )
    return Experiment(
        name=name,
        task=CTCFinetuning(
            model=CTCModel(encoder, num_labels=len(LETTERS)),
            vocabulary=LETTERS,
            time_mask=MaskSpans(numbers.mask_prob, length=10, min_spans=2),
            channel_mask=MaskSpans(numbers.channel_prob, length=64, min_spans=0),
        ),
        train_data=Transcribed(source, LETTERS, PercentileBuckets(numbers.samples_per_batch), normalise),
        valid_data=Transcribed(
            Corpus("librispeech", "dev_other"), LETTERS, PercentileBuckets(numbers.samples_per_batch), normalise
        ),
        optimizer=Adam(
            TriStage(numbers.peak), eps=1e-8, weight_decay=0.0, freezes=(Freeze("encoder", numbers.frozen_steps),)
        ),
        num_steps=numbers.num_steps,
        init_from=WarmStart(pretrained),
    )
