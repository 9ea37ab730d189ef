"""The node's place in the graph: whether the master answers and knows us, and who else publishes on our command topics."""
from __future__ import annotations

import contextlib
import http.client
import threading
import xml.parsers.expat
import xmlrpc.client
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple, Union

import rosgraph
import rospy
from rospy.impl.registration import get_service_manager, get_topic_manager

from hybridvla_ros.runtime.workers import FAULTS, Rate, start_worker

PERIOD_S = 0.5
TIMEOUT_S = 1.0
RECONNECT_EVERY = 4  # checks
LOST_AFTER = 2       # unanswered questions in a row
TYPES, ANY = "topic types", "*"
#: Including errors of something that answers on the master's port but is no master.
ERRORS = (OSError, ValueError, xmlrpc.client.Error, http.client.HTTPException, xml.parsers.expat.ExpatError)

#: A topic and the nodes that publish it.
PublishersOf = Tuple[str, Sequence[str]]
#: The master's list: publishers, subscribers and services, each as (name, nodes).
SystemState = Sequence[Sequence[PublishersOf]]
#: What a node subscribes to: topic, type, and the number of publishers to which it has a connection.
Taken = Tuple[str, str, int]


class Master(Protocol):
    """The calls made to the master; every answer begins with a code, 1 for success, and a sentence."""

    def getSystemState(self, caller: str) -> Tuple[int, str, SystemState]:
        """Returns who publishes, subscribes and serves."""

    def getTopicTypes(self, caller: str) -> Tuple[int, str, List[Tuple[str, str]]]:
        """Returns the type of each topic, as its last publisher has it."""

    def lookupNode(self, caller: str, node: str) -> Tuple[int, str, str]:
        """Returns the address of a node."""

    def registerPublisher(self, caller: str, topic: str, kind: str, uri: str) -> Tuple[int, str, List[str]]:
        """Registers a publisher; returns the subscribers' addresses."""

    def registerSubscriber(self, caller: str, topic: str, kind: str, uri: str) -> Tuple[int, str, List[str]]:
        """Registers a subscriber; returns the publishers' addresses."""

    def registerService(self, caller: str, service: str, service_uri: str, uri: str) -> Tuple[int, str, int]:
        """Registers a service."""


def wrong_types(types: Mapping[str, str], published: Sequence[PublishersOf], taken: Sequence[Taken]) -> str:
    """Names the topics that carry another type than the one subscribed to, and both types.

    Args:
        types: Type of each topic, as the master has it.
        published: Publishers of each topic.
        taken: Subscriptions of this node. A topic with a connection is fine: the master's data on it may be out of date.

    Returns:
        One sentence for each, empty when there are none.
    """
    nodes = dict(published)
    return "; ".join(
        f"{topic} carries {types[topic]}, published by {', '.join(nodes[topic])}, and this node takes {kind}: name a topic of "
        "that type in the configuration" for topic, kind, connected in taken
        if not connected and nodes.get(topic) and types.get(topic, kind) not in (kind, ANY) and kind != ANY)


class GraphWatch:
    """Asks the master on its own thread, so that a master that hangs delays nothing.

    intruders(system state): who else publishes on our command topics, or "". on_lost(text): the master no longer answers
    (text), or answers again (""). on_intruder(text): intruders are there. A restarted master knows nobody, so we
    register again. A broken connection is made again: rospy 1.15 gives it up for good after a reset.
    """

    def __init__(self, intruders: Callable[[SystemState], str] = lambda state: "",
                 on_lost: Callable[[str], None] = lambda text: None,
                 on_intruder: Callable[[str], None] = lambda text: None) -> None:
        self._intruders, self._on_lost, self._on_intruder = intruders, on_lost, on_intruder
        self._name, self._uri = rospy.get_name(), rospy.get_node_uri()
        self._failures = self._count = 0
        self._mending: Optional[threading.Thread] = None
        self.problem = ""
        self._looks = Rate(PERIOD_S, self._run, "watching the graph")

    def _run(self) -> None:
        try:
            self._look()
        except ERRORS as error:
            self._failures += 1
            if self._failures == LOST_AFTER:
                self._say(f"the ROS master does not answer ({error}), so nobody could stop the arms; start it again")
                self._on_lost(self.problem)

    def _look(self) -> None:
        master: Master = _proxy(rosgraph.get_master_uri())
        code, _, state = master.getSystemState(self._name)
        if code != 1:
            return
        if not any(self._name in nodes for _, nodes in state[2]):
            self._register(master)
        if self._failures >= LOST_AFTER:
            self._on_lost("")
        self._failures = 0
        problem = self._intruders(state)
        if problem:
            self._on_intruder(problem)      # at every check: `resume` does not outlast an intruder
        self._say(problem)
        self._count += 1
        if self._count % RECONNECT_EVERY == 0:
            self._compare_types(master, state[0])
        if self._count % RECONNECT_EVERY == 0 and not (self._mending and self._mending.is_alive()):
            # Apart from the checks: every computer that is gone takes TIMEOUT_S.
            self._mending = start_worker("mending connections", self._mend, state[0])

    def _compare_types(self, master: Master, published: Sequence[PublishersOf]) -> None:
        """Reports a topic of another type as a fault: rospy says so only in the publisher's log, and nothing ever arrives."""
        topics = get_topic_manager()
        connections = {topic: topics.get_subscriber_impl(topic) for topic, _ in topics.get_subscriptions()}
        taken = [(topic, kind, connections[topic].get_num_connections() if connections[topic] is not None else 0)
                 for topic, kind in topics.get_subscriptions()]
        text = wrong_types(dict(master.getTopicTypes(self._name)[2]), published, taken)
        if text:
            FAULTS.add(TYPES, text)
        else:
            FAULTS.clear(TYPES)

    def _mend(self, published: Sequence[PublishersOf]) -> None:
        with contextlib.suppress(*ERRORS):      # the next check says what is wrong with the master
            self._reconnect(_proxy(rosgraph.get_master_uri()), published)

    def _reconnect(self, master: Master, published: Sequence[PublishersOf]) -> None:
        """Restores lost connections to living publishers, but only to those whose node answers at once: otherwise rospy
        would wait for it in a thread for ever."""
        topics = get_topic_manager()
        for topic, nodes in published:
            wanted = topics.get_subscriber_impl(topic)
            if wanted is None or wanted.get_num_connections() >= len(nodes):
                continue
            alive = []
            for node in nodes:
                try:
                    uri = master.lookupNode(self._name, node)[2]
                    if uri and not wanted.has_connection(uri):
                        _proxy(uri).getPid(self._name)
                        alive.append(uri)
                except ERRORS:
                    continue
            if alive:
                _proxy(self._uri).publisherUpdate("/master", topic, alive)

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            rospy.logerr("%s", problem)
        self.problem = problem

    def _register(self, master: Master) -> None:
        """Registers everything we offer and want with a master that has forgotten it."""
        slave, name = _proxy(self._uri), self._name
        for topic, kind in get_topic_manager().get_publications():
            master.registerPublisher(name, topic, kind, self._uri)
        for service, uri in get_service_manager().get_services():
            master.registerService(name, service, uri, self._uri)
        for topic, kind in get_topic_manager().get_subscriptions():
            code, _, publishers = master.registerSubscriber(name, topic, kind, self._uri)
            if code == 1 and publishers:
                slave.publisherUpdate("/master", topic, publishers)
        rospy.logwarn("registered again with a master that did not know %s", name)


class _Impatient(xmlrpc.client.Transport):
    """Treats a peer that accepts and then says nothing as gone."""

    def make_connection(self, host: Union[str, Tuple[str, Dict[str, str]]]) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = TIMEOUT_S
        return connection


def _proxy(uri: str) -> Any:
    """Returns an XML-RPC proxy of a node or the master; its answers have no types."""
    return xmlrpc.client.ServerProxy(uri, transport=_Impatient())

