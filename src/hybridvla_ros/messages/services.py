"""Service calls that end: rospy waits for ever when a node has frozen, or the network fails after the connection."""
from __future__ import annotations

from typing import Dict, List, Union

import genpy
import rospy

from hybridvla_core.waiting import Event
from hybridvla_ros.runtime.workers import start_worker

#: How long a service may be absent before it counts as missing, s.
SERVICE_S = 2.0
#: How long an answer may take when nothing has to move, s.
ANSWER_S = 5.0
#: How long each service of the episodes may take beyond that, s. A start waits for the recorder, which first waits for silent
#: topics. A label waits for the bag: the recorder gives a slow disk two minutes, and then reads the bag again.
EPISODE_S: Dict[str, float] = {"start": 70.0, "success": 180.0, "failure": 180.0, "discard": 0.0}


def ask(service: str, kind: type, *arguments: object, service_s: float = SERVICE_S, answer_s: float = ANSWER_S, **fields: object
        ) -> genpy.Message:
    """Calls a service and waits for its answer, but not for ever.

    Args:
        service: Name of the service.
        kind: Class of the service.
        *arguments: Fields of the request, in its order.
        **fields: Fields of the request, by name.
        service_s: How long to wait until the service is available, s.
        answer_s: How long to wait for the answer, s.

    Returns:
        The answer.

    Raises:
        rospy.ROSException: Nobody offers the service.
        rospy.ServiceException: The call failed, or no answer came in time.
    """
    rospy.wait_for_service(service, timeout=service_s)
    answers: List[Union[genpy.Message, Exception]] = []
    answered = Event()

    def call() -> None:
        try:
            answers.append(rospy.ServiceProxy(service, kind)(*arguments, **fields))
        except Exception as error:  # noqa: BLE001  # it is the caller's
            answers.append(error)
        answered.set()
    start_worker(f"asking {service}", call)     # the thread of a lost call ends with the process
    answered.wait(answer_s)
    if not answers:
        raise rospy.ServiceException(f"no answer within {answer_s:g} s: its node has frozen, or the network is gone")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]
