"""The answer that every stand-in gives about its scene."""
from __future__ import annotations

from hybridvla.srv import RigReportResponse
from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.task import World


def judge(answer: RigReportResponse, world: World, instruction: str) -> RigReportResponse:
    """Fills in whether `instruction` is done, or says that the task cannot judge it. Empty: nothing asked."""
    if instruction:
        try:
            answer.task_done = world.success(instruction)
        except HybridVLAError as error:
            answer.success, answer.message = False, str(error)
    return answer
