"""A filter node without a graph, on a clock that only its own waits advance. Tests schedule beforehand what happens meanwhile."""
from __future__ import annotations

import threading
from types import SimpleNamespace

import rospy
from safety_rig import Rig

from hybridvla_ros import filter_handle, safety_node
from hybridvla_ros.filter_handle import FilterHandle
from hybridvla_ros.safety_node import SafetyNode


class Stage:
    """Rig, handle and node. `ask` calls a service, `at` schedules a call, `drift` moves the arms although nothing commands it."""

    def __init__(self, monkeypatch, robot="sim_fr3", modules=(), **keys):
        self.rig = Rig(robot, **keys)
        self.filter, self.lock = self.rig.filter, threading.Lock()
        self.handle = FilterHandle(self.filter, self.lock)
        self.answers, self.pressed, self._calls = {}, True, []
        self._drift_until = self.rig.now
        clock = SimpleNamespace(monotonic=lambda: self.rig.now, sleep=self.sleep)
        for module in (filter_handle, safety_node, *modules):
            monkeypatch.setattr(module, "time", clock)
        for name in ("loginfo", "logwarn"):
            monkeypatch.setattr(rospy, name, lambda *_: None)
        self.node = SafetyNode.__new__(SafetyNode)
        self.node.filter, self.node._lock, self.node.handle = self.filter, self.lock, self.handle
        self.node.config = self.rig.config
        self.node._require_policy, self.node._policy_heard, self.node._policy_says = False, float("-inf"), ""
        self.services = {}
        monkeypatch.setattr(rospy, "Service", lambda name, _kind, serve: self.services.__setitem__(name, serve))
        self.node._services()
        self.sleep(0.05)

    def sleep(self, seconds):
        """Wait: the filter ticks, and the scheduled calls that are due run. Every wait of the node goes through here."""
        end = self.rig.now + seconds
        while self.rig.now < end - 1e-9:
            due = [entry for entry in self._calls if entry[0] <= self.rig.now + 1e-9]
            self._calls = [entry for entry in self._calls if entry not in due]
            for _, name, call in due:
                self.answers[name] = call()
            with self.lock:
                self.filter.on_deadman(self.pressed, self.rig.now)
                if self.rig.now < self._drift_until:
                    for joints in self.rig.joints.values():
                        joints[-1] += 0.2 * self.rig.config.dt
                self.rig.tick()

    def drift(self, seconds):
        """Let the arms move by themselves for `seconds`, as after a push."""
        self.rig.follows = False
        self._drift_until = self.rig.now + seconds
        self.sleep(0.05)

    def at(self, seconds, name, call):
        """Schedule `call` in `seconds`; its result is kept in `answers` under `name`."""
        self._calls.append((self.rig.now + seconds, name, call))

    def ask(self, service, *request):
        """Call a service (`activate`, `stop`, `resume`, `reenter` or `go_to_start`) and return (success, message)."""
        place = "robot" if service == "go_to_start" else "safety"
        answer = self.services[f"/hybridvla/{place}/{service}"](SimpleNamespace(data=request[0] if request else None))
        return answer.success, answer.message

    @property
    def state(self):
        return self.filter.state
