import dataclasses

import jax
import micro
import numpy as np
import pytest
from checkpointed import params_of, save

from w2v2_jax.checkpoints import CheckpointMismatchError
from w2v2_jax.warm_start import WarmStart

TASK = micro.ctc_task()


def test_a_warm_start_takes_the_encoder_and_leaves_the_head(tmp_path):
    pretrained = micro.pretraining()
    params = params_of(TASK, seed=3)
    warm = WarmStart(save(tmp_path, pretrained, seed=7))(params)
    jax.tree.map(np.testing.assert_array_equal, warm["encoder"], params_of(pretrained.task, seed=7)["encoder"])
    jax.tree.map(np.testing.assert_array_equal, warm["head"], params["head"])


def test_a_warm_start_from_another_architecture_is_an_error_that_names_the_first_difference(tmp_path):
    save(tmp_path, micro.pretraining())
    wider = dataclasses.replace(TASK, model=TASK.model.clone(encoder=TASK.model.encoder.clone(embed_dim=24)))
    with pytest.raises(CheckpointMismatchError, match=r"another model: params/encoder/.*24.* here and .*16"):
        WarmStart(tmp_path)(params_of(wider))


def test_a_warm_start_from_nowhere_or_of_an_unknown_part_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*/nothing"):
        WarmStart(tmp_path / "nothing")(params_of(TASK))
    with pytest.raises(ValueError, match="there is no 'body' to start warm; the model has encoder, head"):
        WarmStart(tmp_path, "body")(params_of(TASK))
