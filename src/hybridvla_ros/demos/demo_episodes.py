"""What `make demo` shows of a checkpoint: scenes and sentences of the tasks that it was trained for."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from hybridvla_core.checkpoints.format import Checkpoint
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.trained import check_trained
from hybridvla_sim import tasks
from hybridvla_sim.rigs import RIGS

BLOCKS_TASK = "blocks"


@dataclass(frozen=True)
class Shown:
    """One episode of the demo.

    Attributes:
        seed: Seed of the scene.
        instruction: First instruction.
        second: Instruction given in the middle; None: the first one stays.
        task: Task whose things are on the table.
        timeout_s: Time limit on an idle computer, wall-clock s.
    """

    seed: int
    instruction: str
    second: Optional[str] = None
    task: str = BLOCKS_TASK
    timeout_s: float = 45.0


#: Episodes of a checkpoint that knows only the blocks.
BLOCKS = (Shown(3_000_001, "put the red block on the green pad"),
          Shown(3_000_001, "put the blue block on the yellow pad"),
          Shown(3_000_002, "put the yellow block on the red pad", "put the green block on the blue pad"),
          Shown(3_000_003, "put the green block on the green pad"),
          Shown(3_000_004, "put the red block on the blue pad", "put the blue block on the red pad"),
          Shown(3_000_005, "put the yellow block on the yellow pad"))
#: Episodes of a checkpoint that knows more: it holds a handle, pushes, lets the words decide, places.
SUITE = (Shown(3_000_001, "close the fridge door", None, "close_fridge", 70.0),
         Shown(3_000_001, "take the umbrella out of the stand", None, "umbrella_out_of_stand", 70.0),
         Shown(3_000_001, "put the toilet seat down", None, "toilet_seat_down", 70.0),
         Shown(3_000_001, "put the wine bottle in the left place of the rack", None, "wine_at_rack", 70.0),
         Shown(3_000_002, "put the wine bottle in the right place of the rack", None, "wine_at_rack", 70.0),
         Shown(3_000_002, "close the fridge door", None, "fridge_or_phone", 70.0),
         Shown(3_000_003, "put the phone on the base", None, "fridge_or_phone", 70.0),
         Shown(3_000_001, "put the red block on the green pad"),
         Shown(3_000_002, "put the yellow block on the red pad", "put the green block on the blue pad"))


def shown(folder: Path, checkpoint: Checkpoint) -> Tuple[Tuple[Shown, ...], Dict[str, str]]:
    """Chooses which episodes are shown.

    Args:
        folder: Folder of the checkpoint.
        checkpoint: The checkpoint in it.

    Returns:
        The episodes, grouped by task; and, by name of a task that is left out, the reason.

    Raises:
        HybridVLAError: The checkpoint was trained for none of the tasks of this rig.
    """
    known: List[Shown] = []
    left_out: Dict[str, str] = {}
    for episode in SUITE:
        try:
            check_trained(folder, episode.task, tasks.load(episode.task).phrases.goals)
            known.append(episode)
        except HybridVLAError as error:
            left_out[episode.task] = str(error)
    if not known:
        raise HybridVLAError(next(iter(left_out.values())))
    provenance = checkpoint.manifest["provenance"]
    silent = not provenance.get("tasks") and not provenance.get("instructions")
    if {episode.task for episode in known} == {BLOCKS_TASK} or silent and len(checkpoint.config.cameras) == 1:
        return BLOCKS, {}
    return tuple(known), left_out


def policy_config(checkpoint: Checkpoint) -> Path:
    """Returns the policy configuration for the simulated rig with the checkpoint's cameras."""
    return RIGS["fr3"].policy_for(checkpoint.config.cameras)
