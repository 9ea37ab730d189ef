"""The stand-in's driver without a graph: it dies between two turns of its loop, never in the middle of one."""
import threading
import time

import numpy as np
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_ros.stand_ins.piper import driver as stand_in
from hybridvla_sim import tasks
from hybridvla_sim.piper.rig import PiperRig

CONFIG = load_robot(ROOT / "config" / "robots" / "agilex.yaml")
SLOW_S = 0.05


class Ends:
    """rospy's publishers and subscribers: one that is unregistered has no implementation left, and says so in its own way."""

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

    for wait in (0.2, 0.6, 1.2, 1.7):               # in the middle of each of its messages in turn
        loop = threading.Thread(target=turn)
        loop.start()
        time.sleep(wait * SLOW_S)
        drivers[0].die()
        loop.join()
        assert not failures and not drivers[0].alive and drivers[1].alive
        drivers[0].start()
