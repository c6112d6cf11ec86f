"""A run without a model, for drills: `python counting.py BUG WORKDIR` counts to 60; without a bug it resumes well."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w2v2_jax.checkpoints import Checkpoints
from w2v2_jax.metrics import MetricWriter
from w2v2_jax.preemption import Preempted, preemption


def main(bug: str, workdir: Path) -> None:
    checkpoints = Checkpoints(workdir, {})
    state = {"params": np.int32(0), "state": np.zeros(3, np.float32)}
    restored = checkpoints.restore(jax.tree.map(jnp.asarray, state))
    if restored:
        state = {name: np.array(array) for name, array in restored[0].items()}
        state["state"][1] += bug == "drifts"
    start = restored[2] if restored else 0
    writer = MetricWriter(workdir, resume_step=start)
    with preemption() as requested:
        for step in range(start + 1, 61):
            if requested(step - 1):
                checkpoints.save(step - 1, state, {})
                checkpoints.close()
                raise Preempted(step - 1)
            time.sleep(0.02)
            state = {"params": state["params"] + np.int32(step), "state": state["state"] + np.float32(0.1)}
            writer.write(step, {"count": state["params"]})
            if step % 10 == 0:
                time.sleep(0.1)
                writer.write(step, {"valid/count": 1.0})
            if step % 5 == 0:
                checkpoints.save(step, state, {})
    checkpoints.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
