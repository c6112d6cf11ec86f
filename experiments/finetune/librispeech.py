"""What all of the paper's fine-tuning recipes on LibriSpeech share (section 4.3; fairseq's config/finetuning).

Batch     1600 s of audio a step (8 x 3.2M samples), padding included; all there is of ten minutes.
Schedule  a tenth of the steps up, four tenths flat, half down to 5 %.
Masks     as in pretraining, and spans of 64 channels; a probability is the share of frames or channels that spans
          would cover if none overlapped, the paper's p times the length of a span.
Model     pretraining's without its dropouts, but 0.1 inside the feed-forward layers; the feature encoder stays fixed;
          until `frozen_steps` the head alone learns.
Expect    word error rates without a language model, dev-clean/dev-other, from table 9. None was run by us.

Where paper and code disagree, these follow the code:

                 mask and channel probability               updates
           paper (table 6)   BASE here     LARGE here    paper   here
10 min       .75   .512      .65   .25     .65   .25      12k     13k
1 h          .75   .256      .65   .25     .75   .25      13k     13k
10 h         .65   .256      .65   .5      .75   .25      20k     20k
100 h        .5    .512      .65   .5      .5    .5       50k     80k
960 h        .5    .102      .5    .1      .5    .25     320k    320k

Peak rate    paper 2e-5 or 3e-5, 1e-4 for BASE on 960 h; here 3e-5 to 3e-4, in each file.
Fall         paper linear, here exponential.
LayerDrop    paper 0.05 for BASE; here 0.1, but for 10 h.
Freeze       paper always for 10k steps; here BASE on 100 h and 960 h is not frozen.
"""

import dataclasses

from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.pipeline import Transcribed
from w2v2_jax.data.records import Corpus, RecordSource
from w2v2_jax.data.text import LETTERS
from w2v2_jax.experiment import Experiment
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel, Wav2Vec2
from w2v2_jax.optimizers import Adam, Freeze, TriStage
from w2v2_jax.overrides import override
from w2v2_jax.tasks import CTCFinetuning
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
        best_metric="word_error_rate",
    )
