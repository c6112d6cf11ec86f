"""Starting from what another run has learned: fine-tuning from pretraining."""

import dataclasses
from pathlib import Path

from jaxtyping import PyTree

from w2v2_jax.pretrained import read_params


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Takes one subtree of the parameters from a checkpoint: `init_from=WarmStart("runs/pretrain_base")`.

    `path` is a run, for its newest checkpoint, or one `checkpoints/<step>` of it, or what `from_pretrained` reads of
    other libraries. The default subtree is all that pretraining and fine-tuning have in common.
    """

    path: str | Path
    subtree: str = "encoder"

    def __call__(self, params: PyTree) -> PyTree:
        """`params` with the subtree as saved, each array on the devices where it was.

        Raises:
            ValueError: where there is no checkpoint, or no such subtree in `params`.
            CheckpointMismatchError, FormatError: for another architecture, naming the first array that differs.
        """
        if self.subtree not in params:
            raise ValueError(f"there is no {self.subtree!r} to start warm; the model has {', '.join(params)}")
        return params | read_params(self.path, {self.subtree: params[self.subtree]})
