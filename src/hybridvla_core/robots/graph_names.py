"""Names on the ROS graph through which policy, safety filter, operator and recorder find each other.

They are the same on every robot: a program with a name of its own would be cut off from the others. If you need another
name, remap it in a launch file for all nodes.
"""
from __future__ import annotations

#: Topics from the policy, or from whatever proposes in its place.
PROPOSAL = "/hybridvla/policy/proposal"
HEARTBEAT = "/hybridvla/policy/heartbeat"
INSTRUCTION = "/hybridvla/policy/instruction"
#: Topics to and from the safety filter.
DEADMAN = "/hybridvla/safety/deadman"
STATUS = "/hybridvla/safety/status"
# Topics of recordings: labels of episodes, and what a bag of the recorder begins with.
EPISODE_EVENT = "/hybridvla/episode/event"
SNAPSHOT = "/hybridvla/recording/snapshot"
#: Services.
SET_INSTRUCTION = "/hybridvla/policy/set_instruction"
ACTIVATE = "/hybridvla/safety/activate"
STOP = "/hybridvla/safety/stop"
RESUME = "/hybridvla/safety/resume"
REENTER = "/hybridvla/safety/reenter"
GO_TO_START = "/hybridvla/robot/go_to_start"
