"""The dual-arm stand-in without a graph: one of its drivers dies in the middle of a loop, and its policy needs it."""
import threading
import time

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import load_robot
from hybridvla_ros.stand_ins.expert_policy import REPORT, RemoteExpert
from hybridvla_ros.stand_ins.piper import driver as stand_in
from hybridvla_ros.stand_ins.piper.tray_policy import TrayPolicy
from hybridvla_sim import tasks
from hybridvla_sim.piper.rig import PiperRig

CONFIG = load_robot(ROOT / "config" / "robots" / "agilex.yaml")
SLOW_S = 0.05


class Ends:
    """rospy's publishers and subscribers: once unregistered, they have no implementation left and fail as rospy's do."""

    def __init__(self, topic, kind, callback=None, **options):
        self._live = {"connections": 1}

    def unregister(self):
        self._live = None

    def get_num_connections(self):
        return self._live["connections"]

    def publish(self, message):
        time.sleep(SLOW_S)
        assert self._live["connections"]


@pytest.fixture
def drivers(monkeypatch):
    import rospy

    monkeypatch.setattr(stand_in.rospy, "Publisher", Ends)
    monkeypatch.setattr(stand_in.rospy, "Subscriber", Ends)
    monkeypatch.setattr(stand_in.rospy.Time, "now", staticmethod(lambda: rospy.Time(1)))
    rig = PiperRig(tasks.load("tray", rig="piper"), None, 64, 48)
    rig.reset(np.random.default_rng(1), {arm.name: np.array(arm.start_joints_rad) for arm in CONFIG.arms})
    lock = threading.Lock()
    return [stand_in.PiperDriver(rig, lock, arm, "/enable_flag", stand_in.DriverConfig()) for arm in CONFIG.arms]


@pytest.mark.long
def test_a_driver_that_dies_in_mid_turn_does_not_end_the_other_ones_loop(drivers):
    failures = []

    def turn():
        try:
            for driver in drivers:
                driver.publish()
        except (AttributeError, TypeError) as error:
            failures.append(repr(error))

    for wait in (0.2, 0.6, 1.2, 1.7):               # in the middle of each message in turn
        loop = threading.Thread(target=turn)
        loop.start()
        time.sleep(wait * SLOW_S)
        drivers[0].die()
        loop.join()
        assert not failures and not drivers[0].alive and drivers[1].alive
        drivers[0].start()


@pytest.mark.parametrize("policy, service", [
    (lambda: RemoteExpert(load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"), REPORT), "/sim_rig/report"),
    (TrayPolicy, "/piper_rig/report")])
def test_a_policy_whose_rig_is_not_there_says_so(monkeypatch, policy, service):
    import rospy

    def wait(name, timeout):
        raise rospy.ROSException(f"timeout exceeded while waiting for service {name}")
    monkeypatch.setattr(rospy, "wait_for_service", wait)
    with pytest.raises(HybridVLAError, match=f"nobody has offered {service} for 60 s: .*rig:=stand_in"):
        policy()


def test_a_driver_whose_bus_is_gone_says_for_ever_what_it_heard_last(drivers, monkeypatch):
    import rospy
    from sensor_msgs.msg import JointState

    driver, said = drivers[0], []
    monkeypatch.setattr(driver._joints, "publish", said.append, raising=False)
    here = driver._arm.joints
    command = JointState(position=[*(np.array(CONFIG.arms[0].start_joints_rad) + 0.2), 0.03])
    driver.publish()
    driver.freeze()
    monkeypatch.setattr(stand_in.rospy.Time, "now", staticmethod(lambda: rospy.Time(2)))
    driver._on_joints(command)
    driver._rig.step(0.5)
    driver.publish()
    assert said[1].position == said[0].position and said[1].header.stamp > said[0].header.stamp
    assert np.abs(driver._arm.joints - here).max() < 100, "the command did not reach the arm"
    driver.start()
    driver._on_joints(command)
    driver._rig.step(0.5)
    driver.publish()
    assert np.abs(np.subtract(said[2].position, said[0].position)).max() > 0.05
