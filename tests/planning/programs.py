"""Programs as the TPU compiler writes them, a few lines long."""

from w2v2_jax.planning import hlo


def module(*computations: str) -> hlo.Module:
    return hlo.parse("\n".join(["HloModule jit_step, is_scheduled=true", *computations]))


def computation(name: str, *instructions: str, entry: bool = False) -> str:
    """The last instruction gives the result."""
    *first, last = instructions
    lines = [f"  %{line}" for line in first] + [f"  ROOT %{last}"]
    return "\n".join([f"{'ENTRY ' if entry else ''}%{name} (x: f32[]) -> f32[] {{", *lines, "}"])


def main(*instructions: str) -> str:
    return computation("main", *instructions, entry=True)


def cycles(number: int) -> str:
    return f'backend_config={{"window_config":{{"estimated_cycles":"{number}"}}}}'
