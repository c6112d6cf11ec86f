"""Pretraining and CTC fine-tuning: where sampling, a model and losses meet.

A task has `init`, `loss` and `evaluate`; the train loop knows no more of it. Its loss is a sum with a weight, and so
is every metric: means are exact over micro-batches, devices and hosts.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from w2v2_jax.batches import AudioBatch, LabeledBatch, example_keys
from w2v2_jax.ctc import ctc_loss
from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.greedy import collapse
from w2v2_jax.edit_distance import edit_distance, words_of
from w2v2_jax.losses import contrastive_loss, diversity_loss, feature_penalty, mean_probs, perplexity
from w2v2_jax.masking import (
    TIME_MASK,
    MaskSpans,
    gather_indices,
    sample_distractors,
    sample_mask_spans,
)
from w2v2_jax.metrics import Mean
from w2v2_jax.model import CTCModel, PretrainingModel, PretrainingOutput

Metrics = dict[str, Mean]


class GumbelTemperature(NamedTuple):
    """max(start * decay ** step, end): a pure function of the updates done so far (section 4.2)."""

    start: float = 2.0
    end: float = 0.5
    decay: float = 0.999995

    def __call__(self, step: Int[Array, ""] | int) -> Float[Array, ""]:
        # By the logarithm: in float32 the decay itself is off by more than its powers can bear.
        return jnp.maximum(self.start * jnp.exp(step * math.log(self.decay)), self.end)


GUMBEL_TEMPERATURE = GumbelTemperature()
"""BASE's; LARGE ends at 0.1."""


class Draws(NamedTuple):
    """All that is random in a pretraining batch, dropout apart; `targets` are the positions of the masked frames."""

    masked: Bool[Array, "batch frame"]
    targets: Int[Array, "batch target"]
    weight: Float[Array, "batch target"]
    distractors: Int[Array, "batch target distractor"]
    noise: Float[Array, "batch target group entry"]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Masked contrastive prediction of quantized latents (section 3).

    The objective is the mean over the masked frames of the global batch of the contrastive loss, plus the diversity
    loss and the feature penalty times their weights. Codebook statistics, and so the diversity loss, are taken over
    each group of `sub_batch_size` consecutive clips and averaged by masked frames: 5 is what each of the BASE recipe's
    64 GPUs had, infinity means all clips of the batch. The number of devices plays no part.
    """

    model: PretrainingModel
    time_mask: MaskSpans = TIME_MASK
    num_distractors: int = 100
    contrastive_temperature: float = 0.1
    gumbel_temperature: Callable[[Int[Array, ""] | int], Float[Array, ""]] = GUMBEL_TEMPERATURE
    diversity_weight: float = 0.1
    penalty_weight: float = 10.0
    sub_batch_size: int | float = math.inf

    def __post_init__(self):
        for name in ("num_distractors", "sub_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if not self.contrastive_temperature > 0:
            raise ValueError(f"contrastive_temperature={self.contrastive_temperature}: give a number above 0")

    @property
    def rows_together(self) -> int | float:
        """Clips that share their codebook statistics."""
        return self.sub_batch_size

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Parameters with the names of their axes, in float32."""
        batch = _shortest_batch(self.model.encoder.receptive_field)
        draws = self.sample(example_keys(key, 1), batch, noise_scale=0.0)
        arguments = (draws.masked, draws.targets, draws.noise, 1.0)
        return self.model.init(key, batch.waveform, batch.num_samples, *arguments)["params"]

    def sample(self, keys: Key[Array, " batch"], batch: AudioBatch, noise_scale: float) -> Draws:
        """Masks, distractors and Gumbel noise of each clip from its own key; `noise_scale` is 0 in evaluation."""
        num_frames = self.model.encoder.num_frames(batch.waveform.shape[1])
        max_masked = self.time_mask.max_masked(num_frames)
        quantizer = self.model.quantizer
        mask_keys, distractor_keys, noise_keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys).T
        num_valid = self.model.encoder.num_valid_frames(batch.num_samples)
        masked = sample_mask_spans(mask_keys, num_valid, num_frames, self.time_mask)
        targets, weight = gather_indices(masked, max_masked)
        distractors = sample_distractors(distractor_keys, masked.sum(axis=1), max_masked, self.num_distractors)
        shape = (max_masked, quantizer.num_groups, quantizer.num_entries)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, shape))(noise_keys)
        return Draws(masked, targets, weight, distractors, noise * noise_scale)

    def loss(
        self, params: PyTree, batch: AudioBatch, keys: Key[Array, " batch"], step: Int[Array, ""]
    ) -> tuple[Mean, Metrics]:
        """The objective in nats per masked frame, and what to log of it."""
        layer_drop_key, dropout_key = _network_keys(keys)
        draws = self.sample(keys, batch, noise_scale=1.0)
        temperature = self.gumbel_temperature(step)
        output = self.apply(params, batch, draws, temperature, layer_drop=layer_drop_key, dropout=dropout_key)
        objective, metrics = self.objective(output, draws)
        return objective, metrics | {"gumbel_temperature": Mean(temperature, jnp.ones(()))}

    def evaluate(self, params: PyTree, batch: AudioBatch, keys: Key[Array, " batch"]) -> Metrics:
        """The same measures without dropout or Gumbel noise, on masks that follow from `keys`."""
        draws = self.sample(keys, batch, noise_scale=0.0)
        return self.objective(self.apply(params, batch, draws, 1.0), draws)[1]

    def apply(
        self, params: PyTree, batch: AudioBatch, draws: Draws, temperature: Float[Array, ""] | float, **rngs: Any
    ) -> PretrainingOutput:
        """The model on a batch with everything random given."""
        arguments = (draws.masked, draws.targets, draws.noise, temperature)
        return self.model.apply({"params": params}, batch.waveform, batch.num_samples, *arguments, rngs=rngs)

    def objective(self, output: PretrainingOutput, draws: Draws) -> tuple[Mean, Metrics]:
        """Equation 2, from what the model gave: a sum over masked frames, with their number as its weight."""
        # A lone masked frame has no distractors to be told from.
        weight = draws.weight * (draws.masked.sum(axis=1, keepdims=True) > 1)
        contrastive = contrastive_loss(
            output.context,
            output.quantized,
            output.quantizer.codes,
            draws.distractors,
            self.contrastive_temperature,
        )
        num_targets = weight.sum()
        sums = jax.vmap(self._codebook_sums)(*self._sub_batches(output, weight))
        contrastive_sum = (contrastive.loss * weight).sum()
        total = contrastive_sum + jnp.sum(
            self.diversity_weight * sums["diversity_loss"] + self.penalty_weight * sums["feature_penalty"]
        )
        metrics = {
            "loss": Mean(total, num_targets),
            "contrastive_loss": Mean(contrastive_sum, num_targets),
            "contrastive_accuracy": Mean((contrastive.correct * weight).sum(), num_targets),
            **{name: Mean(value.sum(), num_targets) for name, value in sums.items()},
            "masked_fraction": Mean(draws.masked.sum(), output.valid.sum()),
        }
        return Mean(total, num_targets), metrics

    def _codebook_sums(self, probs: Array, latents: Array, valid: Array, weight: Array) -> dict[str, Array]:
        """Statistics of a sub-batch, each times its number of masked frames."""
        expected = mean_probs(probs, weight)
        chosen = mean_probs(jax.nn.one_hot(probs.argmax(axis=-1), probs.shape[-1]), weight)
        values = {
            "diversity_loss": diversity_loss(expected),
            "feature_penalty": feature_penalty(latents, valid),
            "prob_perplexity": perplexity(expected),
            "code_perplexity": perplexity(chosen),
        }
        return {name: value * weight.sum() for name, value in values.items()}

    def _sub_batches(self, output: PretrainingOutput, weight: Array) -> tuple[Array, ...]:
        clips = weight.shape[0]
        size = int(min(self.sub_batch_size, clips))
        if clips % size:
            raise ValueError(
                f"a batch of {clips} clips can't be cut into sub-batches of {size}; make the batch size a multiple of "
                "sub_batch_size"
            )
        arrays = (output.quantizer.probs, output.latents, output.valid, weight)
        return tuple(x.reshape(clips // size, size, *x.shape[1:]) for x in arrays)


NO_MASK = MaskSpans(prob=0.0, length=1, min_spans=0)
CHANNEL_MASK = MaskSpans(prob=0.25, length=64, min_spans=0)
"""Table 6 for one and ten hours of transcripts: p = 0.004 a channel, spans of 64."""


@dataclasses.dataclass(frozen=True)
class CTCFinetuning:
    """Connectionist temporal classification of labels on a pretrained network (section 3.3).

    Time and channel masks act while training, as in pretraining with the same learned embedding and zeros. The
    objective is the mean over utterances of the CTC loss, which is a sum over an utterance's labels. An utterance
    with more labels than its frames can carry counts as a loss of zero and in `infeasible`.
    """

    model: CTCModel
    vocabulary: Vocabulary
    time_mask: MaskSpans = TIME_MASK
    channel_mask: MaskSpans = CHANNEL_MASK
    rows_together: ClassVar[int] = 1

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Parameters with the names of their axes, in float32; the encoder's are those of pretraining."""
        batch = _shortest_batch(self.model.encoder.receptive_field)
        masks = self._masks(example_keys(key, 1), batch, NO_MASK, NO_MASK)
        return self.model.init(key, batch.waveform, batch.num_samples, *masks)["params"]

    def loss(
        self, params: PyTree, batch: LabeledBatch, keys: Key[Array, " batch"], step: Int[Array, ""]
    ) -> tuple[Mean, Metrics]:
        """The objective in nats per utterance, and what to log of it."""
        layer_drop_key, dropout_key = _network_keys(keys)
        masks = self._masks(keys, batch, self.time_mask, self.channel_mask)
        logits = self.model.apply(
            {"params": params},
            batch.waveform,
            batch.num_samples,
            *masks,
            rngs={"layer_drop": layer_drop_key, "dropout": dropout_key},
        )
        return self.objective(logits, batch)

    def logits(self, params: PyTree, batch: AudioBatch | LabeledBatch) -> Float[Array, "batch frame label"]:
        """Scores of every label at every frame, nothing masked or dropped."""
        masks = self._masks(example_keys(jax.random.key(0), len(batch.num_samples)), batch, NO_MASK, NO_MASK)
        return self.model.apply({"params": params}, batch.waveform, batch.num_samples, *masks)

    def num_frames(self, batch: AudioBatch | LabeledBatch) -> Int[Array, " batch"]:
        """How many frames of `logits` are real audio in each row."""
        return self.model.encoder.num_valid_frames(batch.num_samples)

    def evaluate(self, params: PyTree, batch: LabeledBatch, keys: Key[Array, " batch"]) -> Metrics:
        """Loss and the error rates of greedy decoding, counted on the device over labels and, of letters, words."""
        logits = self.logits(params, batch)
        found = collapse(logits.argmax(axis=-1), self.num_frames(batch), self.vocabulary.blank_id)
        label_errors = edit_distance(found.labels, found.num_labels, batch.labels, batch.num_labels)
        metrics = self.objective(logits, batch)[1]
        metrics["label_error_rate"] = Mean(label_errors.sum(), batch.num_labels.sum())
        if self.vocabulary.has_words:
            words, found_words = (
                words_of(labels, count, self.vocabulary.word_end_id)
                for labels, count in ((batch.labels, batch.num_labels), (found.labels, found.num_labels))
            )
            word_errors = edit_distance(*found_words, *words)
            metrics["word_error_rate"] = Mean(word_errors.sum(), words.count.sum())
        return metrics

    def objective(self, logits: Float[Array, "batch frame label"], batch: LabeledBatch) -> tuple[Mean, Metrics]:
        """CTC loss summed over utterances, with their number as its weight."""
        ctc = ctc_loss(logits, self.num_frames(batch), batch.labels, batch.num_labels, self.vocabulary.blank_id)
        real = (batch.num_samples > 0).astype(jnp.float32)
        total, count = (ctc.losses * real).sum(), real.sum()
        infeasible = (~ctc.feasible * real).sum()
        return Mean(total, count), {"loss": Mean(total, count), "infeasible": Mean(infeasible, count)}

    def _masks(
        self, keys: Key[Array, " batch"], batch: AudioBatch | LabeledBatch, time: MaskSpans, channel: MaskSpans
    ) -> tuple[Bool[Array, "batch frame"], Bool[Array, "batch embed"]]:
        time_keys, channel_keys = jax.vmap(jax.random.split)(keys).T
        encoder = self.model.encoder
        num_channels = jnp.full(len(batch.num_samples), encoder.embed_dim)
        return (
            sample_mask_spans(time_keys, self.num_frames(batch), encoder.num_frames(batch.waveform.shape[1]), time),
            sample_mask_spans(channel_keys, num_channels, encoder.embed_dim, channel),
        )


def _shortest_batch(num_samples: int) -> AudioBatch:
    return AudioBatch(jnp.zeros((1, num_samples)), jnp.full(1, num_samples))


def _network_keys(keys: Key[Array, " batch"]) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """Keys for LayerDrop and dropout, which fall on the batch as a whole."""
    # A number that no split of a row's key reaches.
    layer_drop_key, dropout_key = jax.random.split(jax.random.fold_in(keys[0], 2**31 - 1))
    return layer_drop_key, dropout_key
