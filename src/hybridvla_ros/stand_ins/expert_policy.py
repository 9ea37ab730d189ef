"""Runs the expert of the simulated rig's task behind the real policy node: demonstrates where no person is at hand.

It asks the rig what its expert would do, so it works for every task and variation of both rigs. It waits for the images and
synchronises them as for a model, but does not look at them.
"""
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Union

import numpy as np
import rospy

from hybridvla.srv import RigReport
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import HybridVLAError, ObservationError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros.runtime.node_support import package_path, require_parameter

#: Report services of the simulated rig with one arm, and of the rig with two.
REPORT, DUAL_REPORT = "/sim_rig/report", "/piper_rig/report"
#: How long to wait for a rig that is being started beside the policy, s.
RIG_S = 60.0


def rig_report(service: str) -> rospy.ServiceProxy:
    """Waits for a simulated rig's report.

    Args:
        service: Name of the service.

    Returns:
        The report service, to be called with an instruction.

    Raises:
        HybridVLAError: No rig offers the service.
        ROSInterruptException: The node ends.
    """
    try:
        rospy.wait_for_service(service, timeout=RIG_S)
    except rospy.ROSInterruptException:
        raise
    except rospy.ROSException as error:
        raise HybridVLAError(f"nobody has offered {service} for {RIG_S:.0f} s: this policy asks a simulated rig, and a real "
                             "rig has none; launch with rig:=stand_in, or see why the rig did not start") from error
    return rospy.ServiceProxy(service, RigReport, persistent=True)


class RemoteExpert:
    """A policy with the members of policy/interface.py, and the cameras and convention of a policy's configuration.

    Args:
        config: Configuration of a policy.
        service: Name of the rig's report service.
    """

    manifest_sha256 = "0" * 64
    warms_up = False        # nothing to allocate, and the rig's task need not know the sentence

    def __init__(self, config: PolicyConfig, service: str) -> None:
        self.convention, self.cameras = config.convention, tuple(camera.view for camera in config.cameras)
        self._service = service
        self._report = rig_report(service)

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Returns the expert's next keyframe.

        Raises:
            ObservationError: The task has no such instruction, or the rig does not answer.
        """
        del mode, seed
        began = time.perf_counter()
        try:
            answer = self._report(observation.instruction)
        except rospy.ServiceException as error:
            raise ObservationError(f"{self._service} does not answer ({error})") from error
        if not answer.success:
            raise ObservationError(answer.message)
        action = np.asarray(json.loads(answer.report)["expert"], dtype=float)[None]
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action,
                          stage_ms={"expert": (time.perf_counter() - began) * 1e3})


def main() -> None:
    from hybridvla_ros import policy_node

    config = load_file(PolicyConfig, Path(package_path(require_parameter("policy_config"))))
    policy_node.main(RemoteExpert(config, REPORT if len(config.convention.arms) == 1 else DUAL_REPORT))
