"""Is this run healthy? Rules over its metrics, each naming a sign, what causes it and what cures it.

The thresholds come from the signs that users of other implementations met, not from a fit: a dead codebook, a
collapsed one and a task without distractors each end in one known point, which a healthy run is far from.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from w2v2_jax.metrics import Row

RECENT_ROWS = 10
"""Rows at the end of a run whose median stands for its present state, so that one bad batch is no finding."""


class Finding(NamedTuple):
    """Something wrong with a run: its name, the numbers that show it, what brings it about and what to change."""

    name: str
    evidence: str
    cause: str
    cure: str


class Run(NamedTuple):
    """The metrics of a run, oldest first, and the sizes that fix where its collapses end."""

    rows: Sequence[Row]
    num_groups: int
    num_entries: int
    num_distractors: int

    @property
    def chance_loss(self) -> float:
        """Contrastive loss in nats if the target and the distractors look alike: ln(1 + K)."""
        return math.log1p(self.num_distractors)

    def values(self, key: str) -> list[float]:
        """What was logged under `key`, leaving out the rows without it."""
        return [row[key] for row in self.rows if key in row]

    def recent(self, key: str) -> float:
        """Median of the last values of `key`; NaN, which meets no threshold, if there are none."""
        return median(self.values(key)[-RECENT_ROWS:] or [math.nan])


Rule = Callable[[Run], Finding | None]
"""Looks at a run for one sign. A run that doesn't log what a rule reads doesn't show its sign."""


def not_finite(run: Run) -> Finding | None:
    """A loss or the gradient norm is NaN or infinite."""
    watched = ("loss", "contrastive_loss", "diversity_loss", "feature_penalty", "grad_norm")
    for row in run.rows:
        for key in watched:
            if key in row and not math.isfinite(row[key]):
                return Finding(
                    "not finite",
                    f"{key} is {row[key]} at step {row['step']:.0f}",
                    "an overflow in half precision, a too large update, or samples that are not finite themselves",
                    "go back to the checkpoint before it; train in bfloat16 or float32, not float16; lower the peak "
                    "learning rate; look for NaN in the audio",
                )
    return None


def uniform_logits(run: Run) -> Finding | None:
    """Loss at chance, perplexity at its maximum and no gradient: the encoder's output no longer depends on its input.

    Known to users of fairseq as the loss that stays at 6.658 bits, which is ln(101) = 4.615 nats.
    """
    loss, perplexity, grad_norm = (run.recent(key) for key in ("contrastive_loss", "prob_perplexity", "grad_norm"))
    maximum = run.num_groups * run.num_entries
    at_chance = abs(loss - run.chance_loss) < 0.01 * run.chance_loss
    if not (at_chance and perplexity > 0.95 * maximum and grad_norm < 0.01):
        return None
    return Finding(
        "uniform logits",
        f"contrastive_loss {loss:.3f} = ln(1 + {run.num_distractors}), prob_perplexity {perplexity:.0f} of {maximum}, "
        f"grad_norm {grad_norm:.2g}",
        "the encoder is dead: all frames look alike, so nothing tells the target from a distractor",
        "start again with a lower peak learning rate, a longer warm-up or a larger batch (the recipes' hold 1.4 "
        "hours of audio and more); check that the audio is neither silent nor unnormalised",
    )


def code_collapse(run: Run) -> Finding | None:
    """Every frame is given the same code: the perplexity, summed over G groups, has sunk to about G."""
    perplexity = run.recent("code_perplexity")
    if not perplexity < 1.5 * run.num_groups:
        return None
    return Finding(
        "code collapse",
        f"code_perplexity {perplexity:.2f}, which is about one code in each of {run.num_groups} groups; a healthy run "
        "passes through 20 to 40 early on and climbs from there",
        "the quantizer gives every frame one code, so the diversity loss is too weak against the contrastive loss or "
        "the batch is too small to estimate it",
        "use a larger batch or a lower peak learning rate; check that the diversity loss weighs 0.1 against a "
        "contrastive loss that is a mean over masked frames, not a sum; try 8 groups of 8 entries",
    )


def no_distractors(run: Run) -> Finding | None:
    """The task was solved at once: distractors equal to the target are left out, and it seems that all of them are."""
    early = 2000
    for row in run.rows:
        loss, accuracy = (row.get(key, math.nan) for key in ("contrastive_loss", "contrastive_accuracy"))
        if row["step"] <= early and loss < 0.01 * run.chance_loss and accuracy > 0.99:
            return Finding(
                "every distractor equals the target",
                f"contrastive_loss {loss:.4f} and contrastive_accuracy {accuracy:.3f} at step {row['step']:.0f}; "
                "a healthy BASE run reaches an accuracy of 0.49 in 50,000 steps",
                "nothing is left to tell the target from: one code everywhere, clips of silence or of one repeated "
                "sound, or distractors drawn from the target's own frame",
                "look at code_perplexity and at the audio; then treat it as a code collapse",
            )
    return None


def diverged_gradient(run: Run) -> Finding | None:
    """The gradient norm has grown tenfold over what it was in the run's first half, and stays there."""
    norms = run.values("grad_norm")
    if len(norms) < 2 * RECENT_ROWS:
        return None
    before, now = median(norms[: len(norms) // 2]), run.recent("grad_norm")
    if not now > 10 * before:
        return None
    return Finding(
        "diverged gradient norm",
        f"grad_norm {now:.3g} over the last {RECENT_ROWS} rows, {before:.3g} in the run's first half",
        "updates are larger than the loss surface bears; the loss is about to follow",
        "go back to a checkpoint before the rise and lower the peak learning rate or lengthen the warm-up",
    )


def not_falling(run: Run) -> Finding | None:
    """After thousands of updates the loss is no lower than at the start."""
    patience = 5000
    losses = run.values("loss")
    updates = run.rows[-1]["step"] - run.rows[0]["step"] if run.rows else 0
    if len(losses) < 2 * RECENT_ROWS or updates < patience:
        return None
    start, now = median(losses[:RECENT_ROWS]), run.recent("loss")
    if not now > 0.99 * start:
        return None
    return Finding(
        "loss not falling",
        f"loss {now:.3f} nats after {updates:.0f} updates, {start:.3f} at the start",
        "nothing is learned: the learning rate is still near 0 or too high, the batch too small, or data and labels "
        "do not belong together",
        "check the learning rate's schedule and the batch's hours of audio against the recipe; listen to the clips "
        "that the pipeline gives and read their labels",
    )


RULES: tuple[Rule, ...] = (
    not_finite,
    uniform_logits,
    code_collapse,
    no_distractors,
    diverged_gradient,
    not_falling,
)


def diagnose(
    rows: Sequence[Row], num_groups: int = 2, num_entries: int = 320, num_distractors: int = 100
) -> list[Finding]:
    """What is wrong with a run, the most specific finding first; empty for a healthy run.

    `rows` are those of `metrics.jsonl`, oldest first: each holds "step" and any of "loss" and "contrastive_loss"
    (nats), "contrastive_accuracy", "code_perplexity" and "prob_perplexity" (summed over groups: `num_groups` to
    `num_groups * num_entries`) and "grad_norm". Metrics that a run doesn't log are not judged.
    """
    run = Run(rows, num_groups, num_entries, num_distractors)
    return [finding for rule in RULES if (finding := rule(run))]


def report(findings: Sequence[Finding]) -> str:
    """The findings as text to print, "healthy" if there are none."""
    paragraphs = [
        f"{name}\n  sign:  {evidence}\n  cause: {cause}\n  cure:  {cure}" for name, evidence, cause, cure in findings
    ]
    return "\n\n".join(paragraphs) or "healthy"
