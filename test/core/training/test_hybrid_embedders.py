"""From one robot's checkpoint to another robot: the networks between the robot's numbers and the embeddings are reinitialised."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import toy_data
from safetensors.torch import load_file
from small_policy import observation
from toy_data import config, go, write

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.weights import WEIGHTS
from hybridvla_core.errors import ConfigurationError, DataError
from hybridvla_core.policy.predictor import Policy


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


def test_one_arms_checkpoint_is_a_start_for_two_with_embedders_of_their_own(tmp_path):
    go(tmp_path / "base", write(tmp_path / "one/toy"))
    base, data = tmp_path / "base/out", write(tmp_path / "two/toy", **toy_data.two_arms())
    with pytest.raises(DataError, match="7 action channels, the data 14; write embedders: new and statistics: data"):
        go(tmp_path / "refused", data, init=base, preset="")
    changes = dict(init=base, preset="", embedders="new", grounding=toy_data.GROUNDED)
    go(tmp_path / "begun", data, stages=[dict(name="act", steps=0)], **changes)
    before, after = (load_file(str(folder / WEIGHTS)) for folder in (base, tmp_path / "begun/out"))
    new = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in new} == {"x_embedder", "proprio_embedder", "final_layer"}
    go(tmp_path / "tuned", data, **changes)
    tuned = read_checkpoint(tmp_path / "tuned/out").config
    assert (tuned.convention.arms, tuned.model.action_dim) == (("right", "left"), 14)
    assert Policy.from_checkpoint(tmp_path / "tuned/out").predict(observation(state=np.zeros(14))).action.shape == (1, 14)


def test_embedders_are_new_only_for_a_checkpoints_run_with_the_datas_own_statistics(tmp_path):
    with pytest.raises(ConfigurationError, match="embedders: new is for a run that starts from --init"):
        config(embedders="new")
    with pytest.raises(ConfigurationError, match="embedders: new needs statistics: data"):
        config(embedders="new", preset="", statistics="init")
    with pytest.raises(ConfigurationError, match="embedders is 'fresh'; use one of init, new"):
        config(embedders="fresh")
