"""Samples: each says what is wrong with it, and its grounding is read by the caller's names of the views."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_core.data.sample import GroundedObject, Sample, chunk_of
from hybridvla_core.errors import DataError

RIGHT = dict(images={"front": np.zeros((4, 4, 3), np.uint8)}, state=np.zeros(7), actions=np.zeros((3, 7)),
             padding=np.array([False, False, True]), instruction="take it", episode=3, frame=4)


def with_row(row, value):
    actions = np.zeros((3, 7))
    actions[row, 2] = value
    return actions


@pytest.mark.parametrize("changes, words", [
    (dict(images={}), "no image"),
    (dict(images={"front": np.zeros((4, 4, 3))}), "view front is float64"),
    (dict(state=np.zeros((1, 7))), "the state has shape"),
    (dict(actions=np.zeros((0, 7))), "the actions have shape"),
    (dict(padding=np.zeros(3)), "the padding mask must be"),
    (dict(padding=np.ones(3, dtype=bool)), "padding belongs at a chunk's end"),
    (dict(padding=np.array([True, False, False])), "padding belongs at a chunk's end"),
    (dict(padding=np.array([False, True, False])), "padding belongs at a chunk's end"),
    (dict(state=np.full(7, np.inf)), "the state holds a number"),
    (dict(actions=with_row(1, np.nan)), "an action is not finite"),
    (dict(instruction=" "), "the instruction is empty"),
    (dict(grounding=(GroundedObject(((0, 8),)),)), "ends after the instruction"),
    (dict(grounding=(GroundedObject(((0, 4),), {"b": np.array([1]), "a": np.array([1])}),)), "the sample does not have: a, b"),
])
def test_what_is_wrong_with_a_sample_is_named_with_its_place(changes, words):
    with pytest.raises(DataError, match=f"episode 3, frame 4: .*{words}"):
        Sample(**{**RIGHT, **changes})


def test_rows_behind_the_end_may_hold_anything():
    assert Sample(**{**RIGHT, "actions": with_row(2, np.nan)}).frame == 4


def test_one_view_may_have_several_names_and_what_is_left_out_is_checked():
    line = dict(spans=[[0, 4]], patches={"front": [1, 2], "wrist": [3]}, place=None)
    found = GroundedObject.from_json(line, {"left": "front", "right": "front", "top": "none"})
    assert {view: patches.tolist() for view, patches in found.patches.items()} == {"left": [1, 2], "right": [1, 2]}
    assert set(GroundedObject.from_json(line).patches) == {"front", "wrist"}
    line["patches"]["wrist"] = [-1]
    with pytest.raises(DataError, match="patches of view wrist"):
        GroundedObject.from_json(line, {"front": "front"})


@pytest.mark.parametrize("start", range(5))
def test_a_chunk_is_a_copy_that_ends_with_the_last_row(start):
    rows = np.arange(10.0).reshape(5, 2)
    rows.setflags(write=False)
    actions, padding = chunk_of(rows, start, 3)
    assert actions[:, 0].tolist() == [2.0 * min(start + step, 4) for step in range(3)]
    assert padding.tolist() == [start + step > 4 for step in range(3)]
    actions[:] = 7.0
    assert rows[0, 0] == 0.0
