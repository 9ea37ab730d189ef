"""Episodes of the blocks task, drawn from a seed."""
from __future__ import annotations

from dataclasses import replace
from typing import List

import numpy as np

from hybridvla_sim.task import EpisodeSpec
from hybridvla_sim.tasks.blocks.task import instruction, wanted_pads

#: Range of times at which an instruction is switched: anywhere in the usual duration of an episode, s.
SWITCH_TIME = (0.5, 9.0)


def draw_specs(seed: int, episodes: int, switched: bool, variation: str = "") -> List[EpisodeSpec]:
    """Draws episode i from seed + i. A switch, at a drawn time, changes both words if there is more than one pad to ask for."""
    specs, pads = [], wanted_pads(variation)
    for index in range(episodes):
        rng = np.random.default_rng([seed + index, 17])
        block, pad = int(rng.integers(4)), int(rng.integers(4)) % len(pads)
        spec = EpisodeSpec(seed + index, instruction(block, pads[pad], variation))
        if switched:
            other, place = (block + 1 + int(rng.integers(3))) % 4, (pad + 1 + int(rng.integers(3))) % len(pads)
            second = instruction(other, pads[place], variation)
            spec = replace(spec, switch_at=float(rng.uniform(*SWITCH_TIME)), second=second)
        specs.append(spec)
    return specs
