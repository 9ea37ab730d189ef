"""What RViz shows of a robot: its arms as the filter's own capsules, its limits, targets, proposals and interventions."""
from __future__ import annotations

import math
import time
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import rospy
from geometry_msgs.msg import PoseStamped, Transform, TransformStamped
from geometry_msgs.msg import Quaternion as QuaternionMessage
from visualization_msgs.msg import Marker

from hybridvla.msg import ActionProposal, ArmSafety, SafetyStatus
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics, BatchKinematics
from hybridvla_core.safety.limits.capsules import ArmCapsules
from hybridvla_ros.console.operator.state import SILENCE_S
from hybridvla_ros.console.view.shapes import Layer

#: The frame that all arms share; the mounts of the robot's configuration stand in it.
WORLD = "hybridvla_world"
MEASURED, COMMANDED, LIMITS = (0.25, 0.55, 0.9, 0.9), (0.95, 0.6, 0.15, 0.35), (0.5, 0.5, 0.5, 0.8)
FORBIDDEN, ASKED, WORDS = (0.8, 0.2, 0.2, 0.15), (0.2, 0.75, 0.3, 0.9), (0.9, 0.15, 0.1, 1.0)
PATHS = {"diffusion": (0.1, 0.7, 0.7, 0.9), "autoregressive": (0.75, 0.3, 0.75, 0.9), "action": (0.1, 0.1, 0.1, 0.9)}
WORDS_S, TURNS, CLOSE_M = 5.0, 8, 1e-4
#: Longest way from the measured to the commanded arm that is solved for, m: the filter's leash is far shorter.
FARTHEST_M = 0.3


class ArmView:
    """One arm. Joint states and commanded poses in, markers out."""

    def __init__(self, arm: ArmConfig) -> None:
        self.arm = arm
        self._batch, self._steer, self._capsules = BatchKinematics([arm]), ArmKinematics(arm), ArmCapsules(arm, 0)
        self.joints: Optional[np.ndarray] = None
        self.commanded: Optional[np.ndarray] = None

    def segments(self, joints: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The filter's capsules at joints (dof,) rad: starts and ends (n, 3) m in the base frame, radii (n,) m."""
        starts, ends = self._capsules.segments(self._batch.links(joints[None, None]), np.array([0]))
        return starts[0], ends[0], self._capsules.radii

    def tool(self) -> Optional[np.ndarray]:
        """(3,) m of the measured tool."""
        return None if self.joints is None else self._steer.pose(self.joints)[0]

    def command(self, target: PoseStamped) -> None:
        """Finds joints for a commanded pose, next to the measured ones; none where it is too far for that."""
        self.commanded = None
        if self.joints is None or not is_pose(target) or target.header.frame_id != self.arm.base_frame:
            return
        place = target.pose.position
        goal, q = np.array([place.x, place.y, place.z]), self.joints.copy()
        for _ in range(TURNS):
            gap = goal - self._steer.pose(q)[0]
            distance = float(np.linalg.norm(gap))
            if distance < CLOSE_M:
                self.commanded = q
                return
            if distance > FARTHEST_M:
                return
            jacobian = self._steer.jacobian(q)[:3]
            q = q + jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(3), gap)

    def markers(self, stamp: rospy.Time, told: bool) -> Iterator[Marker]:
        """The arm where it is and, where its command was told lately, where it is commanded."""
        commanded = self.commanded if told else None
        for name, joints, colour in (("measured", self.joints, MEASURED), ("commanded", commanded, COMMANDED)):
            if joints is not None:
                yield from Layer(f"{name}/{self.arm.name}", self.arm.base_frame, stamp).capsules(*self.segments(joints), colour)

    def limits(self, stamp: rospy.Time) -> Iterator[Marker]:
        box, collision = self.arm.workspace, self.arm.collision
        layer = Layer(f"workspace/{self.arm.name}", self.arm.base_frame, stamp)
        centre = 0.5 * (np.array(box.lower_m) + np.array(box.upper_m))
        yield layer.box(box.lower_m, box.upper_m, LIMITS)
        for number, plane in enumerate(box.planes, 2):
            yield layer.plane(number, plane.normal, plane.offset_m, centre, FORBIDDEN)
        if collision.above_table:
            yield layer.plane(1, (0.0, 0.0, 1.0), collision.table_z_m, centre, FORBIDDEN)


class Scene:
    """The whole robot. `markers` makes what is to be shown now: what has fallen silent is no part of it.

    Args:
        robot: Whose arms.
        clock: Monotonic, s: a stamp of the dead looks as new as the clock that it is made by.
    """

    def __init__(self, robot: RobotConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.views: Dict[str, ArmView] = {arm.name: ArmView(arm) for arm in robot.arms}
        self._clock = clock
        self._joints_at: Dict[str, float] = {}
        self._status_at = self._proposal_at = -math.inf
        self._status: Optional[SafetyStatus] = None
        self._proposal: Optional[ActionProposal] = None
        self._words: List[Marker] = []
        self._said = 0

    def on_joints(self, arm: str, joints: Sequence[float]) -> None:
        """Joint positions (dof,) rad of one arm."""
        self.views[arm].joints, self._joints_at[arm] = np.asarray(joints, dtype=float), self._clock()

    def on_status(self, message: SafetyStatus) -> None:
        self._status, self._status_at = message, self._clock()
        for arm in message.arms:
            if arm.name in self.views:
                self.views[arm.name].command(arm.target)

    def on_proposal(self, message: ActionProposal) -> None:
        self._proposal, self._proposal_at = message if message.targets else None, self._clock()

    def on_intervention(self, text: str) -> None:
        """Words where it happened, or where the arm was read last: at the arm that the text names, otherwise at the first."""
        view = next((view for name, view in self.views.items() if name in text.split("/")), next(iter(self.views.values())))
        place = view.tool()
        if place is not None:
            self._said = (self._said + 1) % 50
            layer = Layer("interventions", view.arm.base_frame, rospy.Time())
            self._words.append(layer.words(self._said, text, place + [0.0, 0.0, 0.06], WORDS, WORDS_S))

    def markers(self, stamp: rospy.Time) -> List[Marker]:
        """The arms, targets and proposals of which something came within `SILENCE_S` or that are valid, and the limits."""
        found: List[Marker] = []
        status, now = self._said_lately(), self._clock()
        for name, view in self.views.items():
            # A commanded arm is solved next to the measured one: without that one there is none.
            found += [*(view.markers(stamp, bool(status)) if self._measured(name) else ()), *view.limits(stamp)]
        for arm in status:
            found += self._targets(arm, stamp)
        if self._proposal is not None and now - self._proposal_at > self._proposal.valid_for.to_sec():
            self._proposal = None
        if self._proposal is not None:
            found += self._paths(self._proposal, stamp)
        words, self._words = self._words, []
        for marker in words:
            marker.header.stamp = stamp
        return found + words

    def transforms(self, stamp: rospy.Time) -> List[TransformStamped]:
        """The mounts, and each arm's commanded and measured tool while the filter, and that arm's driver, say something."""
        found = []
        for view in self.views.values():
            mount = view.arm.mount
            found.append(_transform(WORLD, view.arm.base_frame, mount.position_m, mount.quaternion_xyzw, stamp))
        for arm in self._said_lately():
            for name, pose in (("commanded", arm.target), ("measured", arm.measured)):
                place, turn = pose.pose.position, pose.pose.orientation
                # The filter repeats the last measured pose of a dead arm: with a new stamp it would look like the present.
                if is_pose(pose) and (name == "commanded" or self._measured(arm.name)):
                    found.append(_transform(pose.header.frame_id, f"{arm.name}_tool_{name}", (place.x, place.y, place.z),
                                            (turn.x, turn.y, turn.z, turn.w), stamp))
        return found

    def _measured(self, arm: str) -> bool:
        return self._clock() - self._joints_at.get(arm, -math.inf) <= SILENCE_S

    def _said_lately(self) -> Sequence[ArmSafety]:
        """The arms of the filter's status; none where it is silent."""
        silent = self._status is None or self._clock() - self._status_at > SILENCE_S
        return () if silent or self._status is None else self._status.arms

    @staticmethod
    def _targets(arm: ArmSafety, stamp: rospy.Time) -> Iterator[Marker]:
        for number, (pose, colour) in enumerate(((arm.asked, ASKED), (arm.target, COMMANDED))):
            if is_pose(pose):
                yield Layer(f"target/{arm.name}", pose.header.frame_id, stamp).tool(number, pose.pose, colour)

    @staticmethod
    def _paths(proposal: ActionProposal, stamp: rospy.Time) -> Iterator[Marker]:
        """Where each path of the model would go, and what was made of both: the translations of a chunk add up."""
        arms = proposal.targets[:len(proposal.targets) // max(proposal.chunk, 1)]
        for name, colour in PATHS.items():
            rows = np.asarray(getattr(proposal, name), dtype=float)
            # Tokens say the first action of a chunk alone.
            if not rows.size or proposal.action_dim != 7 * len(arms) or not arms or rows.size % proposal.action_dim:
                continue
            rows = rows.reshape(-1, proposal.action_dim)
            for index, target in enumerate(arms):
                base = target.base.pose.position
                points = np.cumsum(np.vstack([[base.x, base.y, base.z], rows[:, 7 * index:7 * index + 3]]), axis=0)
                if np.isfinite(points).all():
                    yield from Layer(f"{name}/{target.name}", target.base.header.frame_id, stamp).path(points, colour)


def is_pose(stamped: PoseStamped) -> bool:
    """Whether there is anything in it: an arm that is not commanded has zeros in place of its target."""
    turn, place = stamped.pose.orientation, stamped.pose.position
    length = float(np.linalg.norm([turn.x, turn.y, turn.z, turn.w]))
    return bool(stamped.header.frame_id) and abs(length - 1.0) < 1e-3 and bool(np.isfinite([place.x, place.y, place.z]).all())


def _transform(parent: str, child: str, position: Sequence[float], quaternion: Sequence[float], stamp: rospy.Time
               ) -> TransformStamped:
    transform = Transform(rotation=QuaternionMessage(*quaternion))
    transform.translation.x, transform.translation.y, transform.translation.z = position
    message = TransformStamped(child_frame_id=child, transform=transform)
    message.header.frame_id, message.header.stamp = parent, stamp
    return message
