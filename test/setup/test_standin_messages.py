"""The stand-in messages equal the real ones: their MD5 sums are those that the real packages generate.

Sums of messages and actions: franka_ros 0.10.2. Of service requests and responses: rosserial headers generated from
franka_msgs; ListControllers and SwitchController: ros_control 0.19/0.20.
"""
from __future__ import annotations

import subprocess
import sys

import pytest

from hybridvla_core.paths import ROOT

SUMS = {
    "franka_msgs.msg:FrankaState": "431567d5df6caf4e4dd7385f25cb71ee",
    "franka_msgs.msg:Errors": "082e9a670c96d8bc64b53e32777458e7",
    "franka_msgs.msg:ErrorRecoveryAction": "d5a016b49f278075666fbc901debbd08",
    "franka_msgs.msg:ErrorRecoveryActionGoal": "4b30be6cd12b9e72826df56b481f40e0",
    "franka_msgs.srv:SetLoadRequest": "0bcbb33b081d0f0b2611ae00474a91d6",
    "franka_msgs.srv:SetEEFrameRequest": "cddf0858e7d540f5bcee9d813a7550a2",
    "franka_msgs.srv:SetFullCollisionBehaviorRequest": "bc875909c147220ba1720adcd48e47ea",
    "franka_msgs.srv:SetFullCollisionBehaviorResponse": "45872d25d65c97743cc71afc6d4e884d",
    "franka_gripper.msg:MoveAction": "85e8e11f508e446b706022926779afee",
    "franka_gripper.msg:GraspAction": "6f89449359949eaf1f0fef57b7e0db2a",
    "franka_gripper.msg:HomingAction": "f37964fcdec026d9507d088d32b65b38",
    "franka_gripper.msg:StopAction": "f37964fcdec026d9507d088d32b65b38",
    "franka_gripper.msg:GraspEpsilon": "95b2c5464a6f679bd1dacaf86414f095",
    "controller_manager_msgs.srv:ListControllers": "1341feb2e63fa791f855565d0da950d8",
    "controller_manager_msgs.srv:SwitchControllerRequest": "36d99a977432b71d4bf16ce5847949d7",
}


@pytest.fixture(scope="module")
def built():
    """Return type -> MD5 sum from the Python code of the devel space."""
    code = ("import importlib, sys\nfor name in sys.argv[1:]:\n    module, kind = name.split(':')\n"
            "    print(name, getattr(importlib.import_module(module), kind)._md5sum)")
    done = subprocess.run([str(ROOT / "scripts" / "with_env.sh"), sys.executable, "-c", code, *SUMS],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", sorted(SUMS))
def test_the_sum_is_the_real_ones(built, name):
    assert built[name] == SUMS[name]
