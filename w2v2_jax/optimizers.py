"""The paper's optimiser: Adam as fairseq computes it, its two learning-rate schedules, and frozen parameters."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int, PyTree

Schedule = Callable[[Any], Any]


class Freeze(NamedTuple):
    """Parameters at or below a dotted path, e.g. "encoder", get no update before `until_step`."""

    path: str
    until_step: float


@dataclasses.dataclass(frozen=True)
class Adam:
    """The optimiser of an experiment: `adam` on a schedule, some parameters frozen for a while (see `freeze`)."""

    schedule: "PolynomialDecay | TriStage"
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.01
    freezes: tuple[Freeze, ...] = ()

    def transformation(self, num_steps: int) -> optax.GradientTransformation:
        """The optax transformation for a run of `num_steps`."""
        schedule = self.schedule.over(num_steps)
        return freeze(adam(schedule, self.b1, self.b2, self.eps, self.weight_decay), dict(self.freezes))

    def learning_rate(self, step: Int[jax.Array, ""] | int, num_steps: int) -> Any:
        """The rate of the update that follows `step` updates."""
        return self.schedule.over(num_steps)(step)


class AdamState(NamedTuple):
    """Updates seen so far and the running moments of the gradient, in float32 whatever the parameters' type."""

    num_updates: Int[jax.Array, ""]
    mean: PyTree
    square: PyTree


def adam(
    schedule: Schedule, b1: float = 0.9, b2: float = 0.98, eps: float = 1e-6, weight_decay: float = 0.01
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, to fairseq's formula (fairseq/optim/adam.py).

    For update t = 1, 2, ... at learning rate `lr = schedule(t - 1)`, with m and v the running means of the gradient and
    of its square,

        p -= lr * weight_decay * p + lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)

    so `eps` is added before v is corrected for its zero start, unlike in `optax.adamw`. The decay falls on every
    parameter, biases and norms included, but for those below `statistics`: what a norm has measured gets no gradient,
    and decay alone would shrink it. The defaults are those of pre-training; fine-tuning has eps=1e-8 and no decay.
    """
    if not (0 <= b1 < 1 and 0 <= b2 < 1):
        raise ValueError(f"b1 and b2 are shares of the past kept in a running mean, in [0, 1); got {b1} and {b2}")
    if not (eps > 0 and weight_decay >= 0):
        raise ValueError(f"eps must be above 0 and weight_decay not below 0; got {eps} and {weight_decay}")
    return optax.chain(
        _scale_by_adam(b1, b2, eps),
        _add_decay(weight_decay),
        optax.scale_by_learning_rate(schedule),
    )


def _scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    def init(params):
        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=jnp.float32), params)
        return AdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(grads, state, params=None):
        t = optax.safe_increment(state.num_updates)
        grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, grads)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.square, grads)
        correction = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mean, square)
        return updates, AdamState(t, mean, square)

    return optax.GradientTransformation(init, update)


def _add_decay(weight_decay: float) -> optax.GradientTransformation:
    def decayed(path, update, param):
        return update if "statistics" in _dotted(path).split(".") else update + weight_decay * param

    return optax.stateless(functools.partial(jax.tree_util.tree_map_with_path, decayed))


@dataclasses.dataclass(frozen=True)
class PolynomialDecay:
    """A line from 0 to `peak` at `warmup_steps`, then one to 0 at the run's last step; the first update has rate 0.

    Paper section 4.2 warms up over 8 % of the updates; fairseq's recipes over 32 000 updates whatever the total.
    """

    peak: float
    warmup_steps: int

    def over(self, num_steps: int) -> Schedule:
        """Learning rate after n updates of a run of `num_steps`."""
        _check_peak(self.peak)
        if not 0 <= self.warmup_steps < num_steps:
            raise ValueError(
                f"a warm-up of {self.warmup_steps} updates doesn't fit in a run of {num_steps}; "
                "give 0 <= warmup_steps < num_steps"
            )

        def learning_rate(n):
            rise = n / self.warmup_steps if self.warmup_steps else 1.0
            fall = (num_steps - n) / (num_steps - self.warmup_steps)
            return self.peak * jnp.clip(jnp.minimum(rise, fall), 0.0)

        return learning_rate


@dataclasses.dataclass(frozen=True)
class TriStage:
    """A line up to `peak`, a plateau, an exponential fall, then constant.

    The line starts at `init_scale * peak` and the fall ends at `final_scale * peak`; `phase_ratio` shares the run's
    steps among the three stages, each rounded down. As fairseq's; paper section 4.3 calls the fall linear.
    """

    peak: float
    phase_ratio: tuple[float, float, float] = (0.1, 0.4, 0.5)
    init_scale: float = 0.01
    final_scale: float = 0.05

    def over(self, num_steps: int) -> Schedule:
        """Learning rate after n updates of a run of `num_steps`."""
        _check_peak(self.peak)
        if min(self.phase_ratio) < 0 or not math.isclose(sum(self.phase_ratio), 1):
            raise ValueError(
                f"phase_ratio is the three stages' shares of the run, adding up to 1; got {self.phase_ratio}"
            )
        if not (0 <= self.init_scale <= 1 and 0 < self.final_scale <= 1):
            raise ValueError(
                "init_scale and final_scale are shares of the peak, final_scale above 0; "
                f"got {self.init_scale}, {self.final_scale}"
            )
        if num_steps < 1:
            raise ValueError(f"a run has at least 1 update; got {num_steps}")
        warmup_steps, hold_steps, decay_steps = (int(num_steps * ratio) for ratio in self.phase_ratio)

        def learning_rate(n):
            rise = self.init_scale + (1 - self.init_scale) * n / max(warmup_steps, 1)
            fallen = jnp.clip((n - warmup_steps - hold_steps) / max(decay_steps, 1), 0.0, 1.0)
            return self.peak * jnp.where(n < warmup_steps, rise, self.final_scale**fallen)

        return learning_rate


def _check_peak(peak: float) -> None:
    if not 0 < peak < math.inf:
        raise ValueError(f"the peak learning rate must be a positive number; got {peak}")


def freeze(optimizer: optax.GradientTransformation, until: Mapping[str, float | int]) -> optax.GradientTransformation:
    """`optimizer`, with the parameters under some paths left exactly as they are for a while.

    `until` maps a dotted path, e.g. "encoder.feature_encoder", to the number of updates for which all parameters at or
    below it get none, weight decay included; `math.inf` is for ever. Where paths nest, the longest one decides.

        freeze(adam(TriStage(3e-5).over(13_000)), {"encoder": 10_000, "encoder.feature_encoder": math.inf})

    Until they thaw the optimiser sees gradients of zero for them, as in fairseq (legacy_ddp): Adam's t runs on, so its
    k-th update after a late thaw is (1 - b1^k) / sqrt(1 - b2^k) times one that starts afresh then, 0.7 at first, 1.55
    at the most. Parameters frozen for ever hold no optimiser state.

    Raises:
        ValueError: at `init`, for a path with no parameter at or below it.
    """

    def thawing(until_step: float | int) -> optax.GradientTransformation:
        if until_step == math.inf:
            return optax.set_to_zero()
        gate = optax.scale_by_schedule(lambda n: n >= until_step)
        return optax.chain(gate, optimizer, gate)

    def label(path: str) -> str:
        covering = [prefix for prefix in until if _is_under(path, prefix)]
        return _frozen_label(until[max(covering, key=len)]) if covering else "trained"

    def labels(params: PyTree) -> PyTree:
        paths = jax.tree_util.tree_map_with_path(lambda path, _: _dotted(path), params)
        for prefix in until:
            _check_covers_a_parameter(prefix, jax.tree.leaves(paths))
        return jax.tree.map(label, paths)

    frozen = {_frozen_label(until_step): thawing(until_step) for until_step in until.values()}
    return optax.partition({"trained": optimizer, **frozen}, labels)


def _frozen_label(until_step: float | int) -> str:
    return f"frozen_until_{until_step}"


def _dotted(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_under(path: str, prefix: str) -> bool:
    return f"{path}.".startswith(f"{prefix}.")


def _check_covers_a_parameter(prefix: str, paths: list[str]) -> None:
    if any(_is_under(path, prefix) for path in paths):
        return
    parts = [path.split(".") for path in paths]
    known = sorted({".".join(names[:depth]) for names in parts for depth in range(1, len(names) + 1)})
    nearest = difflib.get_close_matches(prefix, known, n=1, cutoff=0)[0]
    raise ValueError(f"no parameter to freeze at or below {prefix!r}; did you mean {nearest!r}?")
