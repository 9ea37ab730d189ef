"""Observes the graph for a few seconds and prints the facts as JSON. Runs as its own process in the nodes' environment.

usage: gather.py FILE.json     with the topics to listen to, the parameters to read, the topics of AgileX arms' status, and the
                               node of a Franka driver's stiffness, which is empty if the robot has none
"""
from __future__ import annotations

import io
import json
import socket
import sys
import threading
import time
import xmlrpc.client
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple
from urllib.parse import urlsplit

import rosgraph
import roslib.message
import rospy

from hybridvla_cli.doctor_parts.graph import Facts, Stream
from hybridvla_core.robots.graph_names import STATUS
from hybridvla_ros.adapters.agilex import status as agilex_status
from hybridvla_ros.messages.services import ask
from hybridvla_ros.messages.sources import source_of

LISTEN_S, ANSWER_S = 3.0, 1.0
LIST_CONTROLLERS = "/controller_manager/list_controllers"


class Heard:
    """What came on one topic: only the last message is kept, because three seconds of raw pictures fill the memory."""

    def __init__(self) -> None:
        self.count, self.came = 0, 0.0
        self.last: Any = None
        self._sent: Dict[Tuple[str, Tuple[str, ...]], None] = {}
        self._lock = threading.Lock()

    def take(self, message: rospy.Message) -> None:
        """Counts a message; any thread may call it, and with two publishers two threads do."""
        now = time.time()
        with self._lock:
            self.count, self.came, self.last = self.count + 1, now, message
            names = tuple(getattr(message, "name", ()))
            if names:
                self._sent[source_of(message), names] = None

    def stream(self) -> Stream:
        """Returns the facts of the topic."""
        with self._lock:
            if self.last is None:
                return Stream(seconds=LISTEN_S)
            header = getattr(self.last, "header", None)
            age = self.came - header.stamp.to_sec() if header is not None and header.stamp.to_sec() > 0.0 else None
            data = io.BytesIO()
            self.last.serialize(data)
            return Stream(self.count, LISTEN_S, age, tuple(dict.fromkeys(name for _, names in self._sent for name in names)),
                          getattr(self.last, "width", 0), getattr(self.last, "height", 0), data.tell(), tuple(self._sent))


def gather(topics: List[str], parameters: List[str], arms: List[str], compliance: str) -> Facts:
    """Returns the facts about the master that the environment names."""
    updates = f"{compliance}/parameter_updates" if compliance else ""
    if not rosgraph.is_master_online():
        return Facts(master=rosgraph.get_master_uri(), online=False)
    master = rosgraph.Master("/hybridvla_doctor")
    publishers, subscribers, _ = master.getSystemState()
    types = dict(master.getTopicTypes())
    nodes = {node for entries in (publishers, subscribers) for _, names in entries for node in names}
    rospy.init_node("hybridvla_doctor", anonymous=True, disable_signals=True, disable_rostime=True)
    heard = _listen([topic for topic in (*topics, *arms, updates) if topic in types], types)
    values = {name: str(master.getParam(name)) for name in parameters if master.hasParam(name)}
    simulated = bool(master.hasParam("/use_sim_time") and master.getParam("/use_sim_time"))
    status = heard.pop(STATUS, Heard()).last
    settings = heard.pop(updates, Heard()).last
    states = {topic: heard.pop(topic).last for topic in arms if topic in heard}
    return Facts(master=rosgraph.get_master_uri(), simulated=simulated,
                 publishers={topic: tuple(names) for topic, names in publishers},
                 subscribers={topic: tuple(names) for topic, names in subscribers},
                 unreachable=_unreachable(master, nodes), parameters=values, status=status.message if status is not None else "",
                 dry_run=bool(status.dry_run) if status is not None else None,
                 controllers=_controllers() if compliance else None,
                 stiffness={entry.name: entry.value for entry in settings.doubles} if settings is not None else {},
                 arms={topic: agilex_status.problem(state) if state is not None else "its driver says nothing on "
                       f"{topic}; start it again" for topic, state in states.items()},
                 streams={topic: each.stream() for topic, each in heard.items()})


def _controllers() -> Optional[Dict[str, str]]:
    """Returns name -> state of the loaded controllers; None if nobody answers."""
    try:
        from controller_manager_msgs.srv import ListControllers

        answer = ask(LIST_CONTROLLERS, ListControllers, service_s=ANSWER_S)
    except (ImportError, rospy.ROSException, rospy.ServiceException):
        return None
    return {entry.name: entry.state for entry in answer.controller}


def _listen(topics: List[str], types: Dict[str, str]) -> Dict[str, Heard]:
    heard: Dict[str, Heard] = {}
    subscribers = []
    for topic in topics:
        cls = roslib.message.get_message_class(types[topic])
        if cls is not None:
            heard[topic] = Heard()
            subscribers.append(rospy.Subscriber(topic, cls, heard[topic].take, buff_size=1 << 24))
    time.sleep(LISTEN_S)
    for subscriber in subscribers:
        subscriber.unregister()
    return heard


def _unreachable(master: rosgraph.Master, nodes: Iterable[str]) -> Dict[str, str]:
    found = {}
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_S)
    try:
        for node in sorted(nodes):
            try:
                address = master.lookupNode(node)
            except rosgraph.MasterException:
                continue
            try:
                xmlrpc.client.ServerProxy(address).getPid("/hybridvla_doctor")
            except (OSError, xmlrpc.client.Error):
                found[node] = urlsplit(address).netloc
    finally:
        socket.setdefaulttimeout(before)
    return found


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(asdict(gather(**wanted))))
