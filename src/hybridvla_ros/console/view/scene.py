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

#: The frame that all arms share; the robot's configuration gives their mounts in it.
WORLD = "hybridvla_world"
MEASURED, COMMANDED, LIMITS = (0.25, 0.55, 0.9, 0.9), (0.95, 0.6, 0.15, 0.35), (0.5, 0.5, 0.5, 0.8)
FORBIDDEN, ASKED, WORDS = (0.8, 0.2, 0.2, 0.15), (0.2, 0.75, 0.3, 0.9), (0.9, 0.15, 0.1, 1.0)
PATHS = {"diffusion": (0.1, 0.7, 0.7, 0.9), "autoregressive": (0.75, 0.3, 0.75, 0.9), "action": (0.1, 0.1, 0.1, 0.9)}
WORDS_S, TURNS, CLOSE_M = 5.0, 8, 1e-4
#: Largest distance from the measured to the commanded arm that is solved for, m: the filter's leash is far shorter.
FARTHEST_M = 0.3


class ArmView:
    """One arm: takes joint states and commanded poses, makes markers."""

    def __init__(self, arm: ArmConfig) -> None:
        self.arm = arm
        self._batch, self._steer, self._capsules = BatchKinematics([arm]), ArmKinematics(arm), ArmCapsules(arm, 0)
        self.joints: Optional[np.ndarray] = None
        self.commanded: Optional[np.ndarray] = None

    def segments(self, joints: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the filter's capsules at joints (dof,), rad: starts and ends (n, 3), m, in the base frame, radii (n,), m."""
        starts, ends = self._capsules.segments(self._batch.links(joints[None, None]), np.array([0]))
        return starts[0], ends[0], self._capsules.radii

    def tool(self) -> Optional[np.ndarray]:
        """Returns the position of the measured tool, (3,) m."""
        return None if self.joints is None else self._steer.pose(self.joints)[0]

    def command(self, target: PoseStamped) -> None:
        """Finds joints for a commanded pose, next to the measured ones; none where the pose is too far away."""
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
        """Yields the arm where it is and, if its command is recent, where it is commanded to be."""
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
    """The whole robot. `markers` makes what should be shown now and leaves out whatever has fallen silent.

    Args:
        robot: Configuration of the robot whose arms are shown.
        clock: Returns monotonic time, s: stamps of a dead node look as new as the clock that makes them.
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
        """Takes joint positions (dof,), rad, of one arm."""
        self.views[arm].joints, self._joints_at[arm] = np.asarray(joints, dtype=float), self._clock()

    def on_status(self, message: SafetyStatus) -> None:
        self._status, self._status_at = message, self._clock()
        for arm in message.arms:
            if arm.name in self.views:
                self.views[arm.name].command(arm.target)

    def on_proposal(self, message: ActionProposal) -> None:
        self._proposal, self._proposal_at = message if message.targets else None, self._clock()

    def on_intervention(self, text: str) -> None:
        """Shows words at the last known place of the arm that the text names, otherwise at the first arm."""
        view = next((view for name, view in self.views.items() if name in text.split("/")), next(iter(self.views.values())))
        place = view.tool()
        if place is not None:
            self._said = (self._said + 1) % 50
            layer = Layer("interventions", view.arm.base_frame, rospy.Time())
            self._words.append(layer.words(self._said, text, place + [0.0, 0.0, 0.06], WORDS, WORDS_S))

    def markers(self, stamp: rospy.Time) -> List[Marker]:
        """Returns the limits and those arms, targets and proposals that spoke within `SILENCE_S` or are valid."""
        found: List[Marker] = []
        status, now = self._said_lately(), self._clock()
        for name, view in self.views.items():
            # A commanded arm is solved next to the measured one, so it needs the measured one.
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
        """Returns the mounts, and each arm's commanded and measured tool while the filter and that arm's driver speak."""
        found = []
        for view in self.views.values():
            mount = view.arm.mount
            found.append(_transform(WORLD, view.arm.base_frame, mount.position_m, mount.quaternion_xyzw, stamp))
        for arm in self._said_lately():
            for name, pose in (("commanded", arm.target), ("measured", arm.measured)):
                place, turn = pose.pose.position, pose.pose.orientation
                # The filter repeats the last measured pose of a dead arm: with a new stamp it would look like the present one.
                if is_pose(pose) and (name == "commanded" or self._measured(arm.name)):
                    found.append(_transform(pose.header.frame_id, f"{arm.name}_tool_{name}", (place.x, place.y, place.z),
                                            (turn.x, turn.y, turn.z, turn.w), stamp))
        return found

    def _measured(self, arm: str) -> bool:
        return self._clock() - self._joints_at.get(arm, -math.inf) <= SILENCE_S

    def _said_lately(self) -> Sequence[ArmSafety]:
        """Returns the arms of the filter's status; none where the filter is silent."""
        silent = self._status is None or self._clock() - self._status_at > SILENCE_S
        return () if silent or self._status is None else self._status.arms

    @staticmethod
    def _targets(arm: ArmSafety, stamp: rospy.Time) -> Iterator[Marker]:
        for number, (pose, colour) in enumerate(((arm.asked, ASKED), (arm.target, COMMANDED))):
            if is_pose(pose):
                yield Layer(f"target/{arm.name}", pose.header.frame_id, stamp).tool(number, pose.pose, colour)

    @staticmethod
    def _paths(proposal: ActionProposal, stamp: rospy.Time) -> Iterator[Marker]:
        """Yields where each path of the model would go, and their combination: the translations of a chunk add up."""
        arms = proposal.targets[:len(proposal.targets) // max(proposal.chunk, 1)]
        for name, colour in PATHS.items():
            rows = np.asarray(getattr(proposal, name), dtype=float)
            # Tokens hold only the first action of a chunk.
            if not rows.size or proposal.action_dim != 7 * len(arms) or not arms or rows.size % proposal.action_dim:
                continue
            rows = rows.reshape(-1, proposal.action_dim)
            for index, target in enumerate(arms):
                base = target.base.pose.position
                points = np.cumsum(np.vstack([[base.x, base.y, base.z], rows[:, 7 * index:7 * index + 3]]), axis=0)
                if np.isfinite(points).all():
                    yield from Layer(f"{name}/{target.name}", target.base.header.frame_id, stamp).path(points, colour)


def is_pose(stamped: PoseStamped) -> bool:
    """Tells whether a pose holds anything: an arm that is not commanded has zeros as its target."""
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
