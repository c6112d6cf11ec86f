"""Plans as tables to read."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from w2v2_jax.planning.plan import Memory, Plan
from w2v2_jax.planning.search import kept_for_gradients, rank

ASSUMPTIONS = (
    "Estimates are static, no TPU was timed. An operation takes the longer of its cycles, as the compiler estimates "
    "them, and its traffic with HBM, one operation after the other; loops count as often as they turn, and no layer is "
    "dropped. Collectives use all links of a chip and hide behind nothing. Clips are taken to be full; waiting for "
    "data, evaluation and checkpoints don't count. Model FLOPs are three times the matrix products and convolutions of "
    "the loss."
)
"""What the estimates rest on."""

Row = tuple[str, str, str]


def collect(plans: Iterable[Plan], what: str) -> list[Plan]:
    """Waits for all plans, of which each takes minutes, and says on standard error what is going on."""
    found = []
    columns = (SpinnerColumn(), TextColumn("compiling {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what)
        for plan in plans:
            found.append(plan)
            best = " ".join(filter(None, _cells(min(found, key=rank))))
            progress.update(task, description=f"{what}: {len(found)} done, best so far {best}")
    return found


def plan_table(plan: Plan) -> Table:
    """All that is known of a plan."""
    table = Table(title=Text(f"{plan.experiment.name} on {plan.slice}"), show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    sections = [_setup(plan), _memory(plan)]
    if plan.fits:
        sections += [_collectives(plan), _estimates(plan)]
    for section in sections:
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table


def _setup(plan: Plan) -> Iterator[Row]:
    content, parts = plan.content, plan.experiment.accumulation_steps
    yield "chips", f"{plan.slice.num_chips}", mesh_text(plan)
    row = f"{plan.length / content.places:.4g} {content.place}"
    yield "batch", f"{plan.rows} x {row}", f"{_number(plan.amount)} {content.unit} of {content.name} a step"
    at_once = plan.rows * plan.experiment.mesh.tensor / plan.slice.num_chips / parts
    yield f"{content.rows} a chip", f"{at_once:g}", f"at once, accumulation_steps={parts}"
    yield "model FLOPs", f"{plan.model_flops / 1e12:,.4g} TFLOP", "a step, on all chips together"


def _memory(plan: Plan) -> Iterator[Row]:
    nominal = f"a chip has {_gib(plan.slice.chip.hbm_bytes)}"
    if not isinstance(plan.memory, Memory):
        wanted, available = _gib(plan.memory.peak), _gib(plan.memory.available)
        yield "fits", "[bold red]no[/]", f"{wanted} of HBM wanted, {available} there for programs"
        return
    yield "fits", "[bold green]yes[/]", nominal
    yield "HBM a chip", _gib(plan.memory.peak), "peak"
    yield "  arguments", _gib(plan.memory.arguments), "parameters, optimizer, batch"
    yield "  temporaries", _gib(plan.memory.temporaries), "activations, gradients, metrics"
    yield "  code", _gib(plan.memory.code), ""


def _collectives(plan: Plan) -> Iterator[Row]:
    for kind in sorted({each.kind for each in plan.cost.collectives}):
        sizes = [each.num_bytes for each in plan.cost.collectives if each.kind == kind]
        yield kind, f"{len(sizes):,} a step", f"of {sum(sizes) / 1e6:,.1f} MB in all"


def _estimates(plan: Plan) -> Iterator[Row]:
    cost = plan.cost
    yield "step", _ms(plan.step_seconds), "estimate"
    alone = f"compute {_ms(cost.compute)}, memory {_ms(cost.memory)} if each were alone"
    yield "  on the chip", _ms(cost.seconds), f"estimate: {alone}"
    yield "  collectives", _ms(cost.communication), "estimate: on all links, hidden by nothing"
    content = plan.content
    yield content.name, f"{_number(plan.throughput)} {content.unit}/s", f"estimate: of {content.name} without padding"
    yield "MFU", f"{plan.mfu:.1%}", f"estimate: of {plan.slice.chip.flops / 1e12:.0f} TFLOP/s a chip in bfloat16"
    yield f"{plan.experiment.num_steps:,} steps", f"{plan.days:.3g} days", "estimate: without a pause"
    if cost.unknown_loops:
        yield "unknown loops", f"{cost.unknown_loops}", "counted as one turn each: the step takes longer"
    if cost.unknown_kernels:
        yield "unknown kernels", f"{cost.unknown_kernels}", "without their arithmetic: the step takes longer"


def search_table(plans: Sequence[Plan]) -> Table:
    """Plans of an experiment beside each other, the best first."""
    first = plans[0]
    table = Table(title=Text(f"{first.experiment.name} on {first.slice}, batch {first.rows}: the fastest first"))
    table.add_column("mesh")
    table.add_column("kept for gradients")
    throughput = f"{first.content.name} {first.content.unit}/s"
    for name in ("parts", "HBM GiB", "step ms", throughput, "MFU", "days"):
        table.add_column(name, justify="right")
    for index, plan in enumerate(sorted(plans, key=rank)):
        table.add_row(*_cells(plan), style="bold" if index == 0 and plan.fits else "" if plan.fits else "dim")
    return table


def _cells(plan: Plan) -> list[str]:
    setup = [mesh_text(plan), kept_for_gradients(plan.experiment), f"{plan.experiment.accumulation_steps}"]
    memory = f"{plan.memory.peak / 2**30:.2f}"
    if not plan.fits:
        return [*setup, memory, "doesn't fit", "", "", ""]
    return [
        *setup,
        memory,
        f"{plan.step_seconds * 1e3:.1f}",
        _number(plan.throughput),
        f"{plan.mfu:.1%}",
        f"{plan.days:.3g}",
    ]


def mesh_text(plan: Plan) -> str:
    """Such as data=64 fsdp=4."""
    shape = plan.experiment.mesh
    shared = {name: size for name, size in shape._asdict().items() if size > 1}
    sizes = {"data": plan.slice.num_chips // (shape.fsdp * shape.tensor)} | shared
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"
