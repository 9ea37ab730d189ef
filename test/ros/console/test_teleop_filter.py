"""The SpaceMouse node before a real filter: while the button is held, no arm moves by itself after activate or resume, and none
is led by a device that is gone."""
from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from geometry_msgs.msg import Twist
from safety_rig import DOWN, Rig
from sensor_msgs.msg import Joy

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Pose
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.graph_names import DEADMAN, HEARTBEAT, PROPOSAL, STATUS
from hybridvla_core.safety.status import Reason, State
from hybridvla_ros.console import spacemouse_node
from hybridvla_ros.console.spacemouse_node import SpaceMouseNode
from hybridvla_ros.console.teleop import Teleop, TeleopConfig
from hybridvla_ros.messages import conversions

FILE = ROOT / "config/teleop/spacemouse.yaml"
DEVICE_S = 0.03


class Desk:
    """A SpaceMouse node without a graph, and a filter; only the node's own waits let time pass."""

    def __init__(self, monkeypatch, device, **keys):
        self.rig = Rig(**keys)
        self.rig.beating = False
        self.filter = self.rig.filter
        self.ears, self.proposals, self.said = {}, [], None
        self.device = device
        device.touch()
        self.hand, self.held, self.drift_rad_s = (0.0, 0.0, 0.0), True, 0.0
        self.end = self.device_at = 0.0
        monkeypatch.setattr(rospy, "Publisher", lambda topic, *_, **__: SimpleNamespace(
            publish=lambda message: self.deliver(topic, message)))
        monkeypatch.setattr(rospy, "Subscriber", lambda topic, _kind, call, **_: self.ears.__setitem__(topic, call))
        monkeypatch.setattr(rospy.Time, "now", staticmethod(lambda: rospy.Time.from_sec(self.rig.now)))
        monkeypatch.setattr(rospy, "is_shutdown", lambda: self.rig.now >= self.end)
        monkeypatch.setattr(spacemouse_node, "time", SimpleNamespace(monotonic=lambda: self.rig.now, sleep=self.sleep))
        monkeypatch.setattr(spacemouse_node, "Diagnostics", lambda *_: None)
        monkeypatch.setattr(spacemouse_node, "InstructionSource", lambda *_: SimpleNamespace(sequence=1, text="move"))
        self.config = load_file(TeleopConfig, FILE)
        self.node = SpaceMouseNode(self.config, self.rig.config, str(device))
        self.node.teleop.on_opening(1.0, commanded=True)
        self.run(0.3)

    def deliver(self, topic, message):
        now = self.rig.now
        if topic == PROPOSAL:
            self.proposals.append(conversions.proposal_contract(message))
            self.filter.on_proposal(self.proposals[-1], now)
        elif topic == HEARTBEAT:
            self.filter.on_heartbeat(conversions.heartbeat_contract(message), now)
        elif topic == DEADMAN:
            self.said = message.data
            self.filter.on_deadman(message.data, now)

    def sleep(self, seconds):
        end = self.rig.now + seconds
        while self.rig.now < end - 1e-9:
            self.rig.joints["arm"][0] += self.drift_rad_s * self.rig.config.dt
            output = self.rig.tick()
            if output.status_changed or len(self.rig.sent) % 10 == 0:
                self.ears[STATUS](conversions.status_message(output.status, {}))
            if self.rig.now >= self.device_at:
                self.device_at = self.rig.now + DEVICE_S
                twist = Twist()
                twist.linear.x, twist.linear.y, twist.linear.z = self.hand
                self.ears[self.config.twist_topic](twist)
                self.ears[self.config.buttons_topic](Joy(buttons=[int(self.held), 0]))

    def run(self, seconds, hand=(0.0, 0.0, 0.0), drift_rad_s=0.0):
        """Let the node run. hand: deflection; drift_rad_s: speed at which somebody turns the arm's first joint."""
        self.hand, self.drift_rad_s, self.end = hand, drift_rad_s, self.rig.now + seconds
        self.node.spin()

    def goes_by_itself(self):
        """Return how far the commanded tool moves within 2 s of a hand at rest, m."""
        self.rig.tick()
        begin = self.rig.pose().position.copy()
        self.run(2.0)
        assert self.node.teleop.deadman(self.rig.now), "the button is held"
        return float(np.linalg.norm(self.rig.pose().position - begin))


@pytest.fixture
def desk(monkeypatch, tmp_path):
    desk = Desk(monkeypatch, tmp_path / "spacemouse")
    assert desk.filter.activate(True, desk.rig.now)[0]
    desk.run(1.0, hand=(0.0, 1.0, 0.0))
    desk.run(0.3)
    assert desk.rig.pose().position[1] > 0.05
    return desk


def test_an_arm_that_was_moved_while_inactive_stays_when_it_is_activated_with_the_button_held(desk):
    assert desk.filter.activate(False, desk.rig.now)[0]
    desk.run(0.3)
    count = len(desk.proposals)
    desk.run(1.0, hand=(0.0, 1.0, 0.0), drift_rad_s=-0.3)
    desk.run(0.5)
    assert desk.filter.activate(True, desk.rig.now)[0]
    assert desk.goes_by_itself() < 1e-4
    assert not [proposal for proposal in desk.proposals[count:] if proposal.seed < 2], "nothing is asked of an inactive filter"
    begin = desk.rig.pose().position[0]
    desk.run(1.5, hand=(1.0, 0.0, 0.0))
    assert desk.rig.pose().position[0] > begin + 0.05, "the hand leads it again"


def test_a_hand_that_moved_while_stopped_asks_for_nothing_after_resume(desk):
    assert desk.filter.stop(desk.rig.now)[0]
    desk.run(1.0, hand=(0.0, 1.0, 0.0))
    assert desk.filter.resume(desk.rig.now)[0] and desk.filter.state == State.HOLDING
    assert desk.goes_by_itself() < 1e-4


def test_a_device_unplugged_in_mid_motion_with_its_button_held_leads_nothing_until_it_is_pressed_anew(desk):
    back = (0.0, -1.0, 0.0)
    desk.run(0.3, hand=back)
    assert desk.said and desk.filter.state == State.ACTIVE
    desk.device.unlink()                 # spacenav_node repeats the deflection and the held button for ever
    desk.run(0.1, hand=back)
    assert not desk.said
    desk.run(0.9, hand=back)
    assert not desk.said and desk.filter.state == State.HOLDING
    stood = desk.rig.pose().position.copy()
    desk.device.touch()
    desk.run(0.5, hand=back)
    assert not desk.said and desk.filter.state == State.HOLDING, "plugged in again is not pressed again"
    assert np.linalg.norm(desk.rig.pose().position - stood) < 1e-4
    desk.held = False
    desk.run(0.1)
    desk.held = True
    desk.run(0.5, hand=back)
    assert desk.said and desk.rig.pose().position[1] < stood[1] - 0.02, "the hand leads it again"


def test_after_a_dry_run_the_arm_stays_where_it_is(monkeypatch, tmp_path):
    desk = Desk(monkeypatch, tmp_path / "spacemouse", dry_run=True)
    assert desk.filter.activate(True, desk.rig.now)[0]
    desk.run(1.0, hand=(0.0, 1.0, 0.0))
    assert desk.rig.pose().position[1] > 0.05, "the dry run follows the hand"
    desk.filter.activate(False, desk.rig.now)
    desk.run(0.3)
    desk.filter.set_dry_run(False)
    assert desk.filter.activate(True, desk.rig.now)[0]
    assert desk.goes_by_itself() < 1e-4 and abs(desk.rig.pose().position[1]) < 1e-3


def test_proposals_carry_the_seed_of_the_status_and_none_is_refused(desk):
    assert desk.proposals[-1].seed == desk.rig.output.status.seed == 1
    desk.filter.activate(False, desk.rig.now)
    desk.run(0.3)
    desk.filter.activate(True, desk.rig.now)
    desk.run(0.5, hand=(0.0, 1.0, 0.0))
    assert desk.proposals[-1].seed == desk.rig.output.status.seed == 2
    refused = {name: count for name, count in desk.filter.counters.items() if name.startswith("rejected/") and count}
    assert not refused and not desk.rig.output.status.reasons & Reason.PROPOSAL_STALE


def test_a_target_of_another_seed_is_dropped_although_no_status_between_was_heard(desk):
    teleop, status = Teleop(desk.config), desk.rig.output.status
    teleop.on_opening(1.0, commanded=True)

    def asked(seed, position):
        arm = dataclasses.replace(status.arms[0], target=Pose(np.array(position), DOWN))
        teleop.on_status(dataclasses.replace(status, state=State.HOLDING, seed=seed, arms=(arm,)), "arm", 1.0)
        base, target, _ = teleop.tick(1.0)
        return float(np.linalg.norm(target.position - base.position))
    teleop.on_buttons((1, 0), 1.0)
    teleop.on_twist((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0)
    assert [asked(1, [0.5, 0.0, 0.3]) for _ in range(20)][-1] == pytest.approx(desk.config.lead_m)
    teleop.on_twist((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0)
    assert asked(1, [0.5, 0.0, 0.3]) == pytest.approx(desk.config.lead_m) and asked(2, [0.5, 0.1, 0.3]) == pytest.approx(0.0)


@pytest.mark.parametrize("state, words", [
    (State.INACTIVE, "the filter is inactive; call activate"), (State.STOPPED, "call resume"),
    (State.RECOVERING, "wait until it is inactive")])
def test_a_hand_leads_nothing_while_the_filter_does_not_follow_and_the_node_says_why(desk, state, words):
    desk.node.teleop.on_status(dataclasses.replace(desk.rig.output.status, state=state), "arm", desk.rig.now)
    assert desk.node.teleop.tick(desk.rig.now) is None and words in desk.node.teleop.problem(desk.rig.now)
