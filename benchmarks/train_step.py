"""Our train step beside that of transformers on PyTorch: the same network, batch and work on the same device.

    python benchmarks/train_step.py [--preset PRESET] [--task TASK] [--clips N] [--samples N] [--repeats N]

Prints, and writes to benchmarks/results/train_step_<device>.md, seconds a step, hours of audio a second, model FLOPs
utilisation and peak memory of both, and how many times faster ours is. Needs torch and transformers, for CUDA where
JAX has a GPU; on a TPU ours runs alone.

Each side is a process of its own and they take turns, step by step: while one works the other waits for a line on its
standard input. So neither's pool of threads, allocator or caches are the other's, and what else happens on the machine
meets both alike. How busy the waiting side was is measured and printed. On a CPU both are bound to the same cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from report import RESULTS, publish
from train_cases import FIRST_LABEL, Case, config_for_transformers, num_labels
from worker import Worker

from w2v2_jax.planning.chips import CHIPS

HERE = Path(__file__).parent
PRESETS, TASKS = ("base", "large"), ("pretraining", "ctc")
THREADS = 2

PEAK_FLOPS = {
    "TPU v4": CHIPS["v4"].flops,
    "TPU v5 lite": CHIPS["v5e"].flops,
    "TPU v5": CHIPS["v5p"].flops,
    "TPU v6 lite": CHIPS["v6e"].flops,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
"""Dense bfloat16 by the start of what JAX calls the device, from the makers' data sheets; the longest start counts."""


class Device(NamedTuple):
    """What JAX computes on: `platform` is cpu, gpu or tpu."""

    platform: str
    kind: str


class Setting(NamedTuple):
    """What depends on the device: the batch and its precision unless told otherwise, steps in each turn and before the
    first, and the size of the square matrices whose product shows the device's peak."""

    clips: int
    samples: int
    dtype: str
    steps: int
    warm_up: int
    product: int


SETTINGS = {
    "cpu": Setting(clips=2, samples=80_000, dtype="float32", steps=1, warm_up=1, product=2048),
    "gpu": Setting(clips=8, samples=245_840, dtype="bfloat16", steps=10, warm_up=3, product=8192),
    "tpu": Setting(clips=8, samples=245_840, dtype="bfloat16", steps=10, warm_up=3, product=8192),
}


class Side(NamedTuple):
    """What one library needed: `seconds` is the median of its turns."""

    seconds: float
    memory: dict[str, int]
    peak_flops: float


class Comparison(NamedTuple):
    """Both sides of a case; `waiting` is the largest share of a core that a side took while it was the other's turn."""

    case: Case
    flops: int
    sides: dict[str, Side]
    waiting: float


def main() -> None:
    """Measures the cases that were asked for, by default all four."""
    options = arguments()
    device = find_device()
    setting = SETTINGS[device.platform]
    os.sched_setaffinity(0, cores_for(device))
    cases = [
        Case(preset, task, options.clips or setting.clips, options.samples or setting.samples, setting.dtype)
        for preset in ([options.preset] if options.preset else PRESETS)
        for task in ([options.task] if options.task else TASKS)
    ]
    comparisons = [compare(case, device, setting, options.repeats) for case in cases]
    peak = peak_flops(device, comparisons)
    rows = [row for comparison in comparisons for row in rows_of(comparison, peak)]
    name = "cpu" if device.platform == "cpu" else device.kind.lower().replace(" ", "-")
    headers = ("network", "task", "library", "s a step", "h of audio a s", "MFU", "peak memory GB", "ours is faster by")
    page = options.results / f"train_step_{name}.md"
    publish(
        page,
        f"Train step on {device.kind}",
        text(comparisons, device, options.repeats, peak),
        headers,
        rows,
        device.kind,
    )


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", help="a network of w2v2_jax.presets; default: base and large")
    parser.add_argument("--task", choices=TASKS, help="default: both")
    parser.add_argument("--clips", type=int, help="of a batch")
    parser.add_argument("--samples", type=int, help="of a clip")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side, of which the median counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the table")
    return parser.parse_args()


def find_device() -> Device:
    """What JAX finds, asked in a process that gives it back again."""
    ask = "import jax, json; d = jax.devices()[0]; print(json.dumps([d.platform, d.device_kind]))"
    done = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True)
    platform, kind = json.loads(done.stdout.splitlines()[-1])
    return Device({"cuda": "gpu"}.get(platform, platform), kind)


def cores_for(device: Device) -> set[int]:
    """The cores that both sides may use; XLA and OpenMP make as many threads."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[:THREADS] if device.platform == "cpu" else cores)


def compare(case: Case, device: Device, setting: Setting, repeats: int) -> Comparison:
    """Both sides by turns."""
    print(f"{case.preset}, {case.task}: compiling", file=sys.stderr, flush=True)
    # Each may have less than half of the device: both are there at once.
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45", "PYTHONPATH": f"{HERE.parent}"}
    job = {"case": case._asdict(), "warm_up": setting.warm_up, "product": setting.product}
    workers = {"w2v2_jax": Worker(HERE / "train_step_jax.py", job, environment)}
    if device.platform != "tpu":
        job |= {
            "config": config_for_transformers(case),
            "first_label": FIRST_LABEL,
            "num_labels": num_labels(case),
            "device": {"gpu": "cuda"}.get(device.platform, device.platform),
            "threads": len(os.sched_getaffinity(0)),
        }
        workers["transformers"] = Worker(HERE / "train_step_torch.py", job, environment)
    seconds, waiting = {name: [] for name in workers}, 0.0
    for _ in range(repeats):
        for name, worker in workers.items():
            others = [other for other in workers.values() if other is not worker]
            before = sum(other.processor_seconds() for other in others)
            seconds[name].append(worker.seconds(setting.steps))
            busy = sum(other.processor_seconds() for other in others) - before
            waiting = max(waiting, busy / seconds[name][-1] / setting.steps)
    print(f"{case.preset}, {case.task}: {json.dumps(seconds)}", file=sys.stderr, flush=True)
    sides = {
        name: Side(statistics.median(seconds[name]), worker.finish(), worker.about["peak_flops"])
        for name, worker in workers.items()
    }
    return Comparison(case, workers["w2v2_jax"].about["flops"], sides, waiting)


def peak_flops(device: Device, comparisons: list[Comparison]) -> float:
    """The data sheet's, or else what the faster library reached in this run with large square matrices."""
    starts = [start for start in PEAK_FLOPS if device.kind.startswith(start)]
    if starts:
        return PEAK_FLOPS[max(starts, key=len)]
    return max(side.peak_flops for comparison in comparisons for side in comparison.sides.values())


def rows_of(comparison: Comparison, peak: float) -> list[tuple[str, ...]]:
    """A row for each side."""
    case, flops, sides, _ = comparison
    ours = sides["w2v2_jax"].seconds
    rows = []
    for name, (seconds, memory, _) in sides.items():
        utilisation = f"{flops / seconds / peak:.2f}"
        ratio = "" if name == "w2v2_jax" else f"{seconds / ours:.2f}"
        peak_memory = f"{memory['peak'] / 1e9:.2f}"
        numbers = (f"{seconds:.3f}", f"{case.hours / seconds:.4f}", utilisation, peak_memory, ratio)
        rows.append((case.preset.upper(), case.task, name, *numbers))
    return rows


def text(comparisons: list[Comparison], device: Device, repeats: int, peak: float) -> str:
    """What the numbers mean."""
    case = comparisons[0].case
    known = any(device.kind.startswith(start) for start in PEAK_FLOPS)
    size = SETTINGS[device.platform].product
    measured = f"the best product of {size} x {size} matrices in this run ({case.dtype})"
    of_peak = "the data sheet" if known else measured
    temporaries = ", ".join(
        f"{c.case.preset.upper()} {c.case.task} {c.sides['w2v2_jax'].memory['temporaries'] / 1e9:.2f} GB"
        for c in comparisons
    )
    compiled = " and torch.compile" if device.platform == "gpu" else ""
    return (
        f"{case.clips} clips of {case.samples} samples, {case.dtype}: loss, gradients and Adam. Medians of {repeats} "
        "turns, the two sides alternating, each in a process of its own; while one worked the other took "
        f"{max(c.waiting for c in comparisons):.1%} of a core at most. Dropout as published, no LayerDrop, the feature "
        "encoder frozen in CTC. Our layers are unrolled and, but on a TPU, nothing of them is recomputed. No attention "
        "mask for transformers, its masks and distractors drawn beforehand and not timed (ours are), its AdamW fused"
        f"{compiled}. MFU: operations of our products, the same for both, over {peak / 1e12:.3g} TFLOP/s, {of_peak}. "
        "Peak memory: "
        + ("of the process" if device.platform == "cpu" else "of the device")
        + f", once compiled; temporaries of our compiled step: {temporaries}."
    )


if __name__ == "__main__":
    main()
