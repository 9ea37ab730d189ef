"""The ROS side of the page: turns topics into a `ConsoleState`, pictures into JPEG, buttons into service calls."""
from __future__ import annotations

import math
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import rospy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from hybridvla.msg import ActionProposal, EpisodeEvent, PolicyHeartbeat, SafetyStatus
from hybridvla.srv import SetInstruction
from hybridvla_core.errors import ObservationError
from hybridvla_core.policy.cameras import CameraSource
from hybridvla_core.robots.graph_names import (
    ACTIVATE,
    EPISODE_EVENT,
    GO_TO_START,
    HEARTBEAT,
    INSTRUCTION,
    PROPOSAL,
    REENTER,
    RESUME,
    SET_INSTRUCTION,
    STATUS,
    STOP,
)
from hybridvla_ros.console.operator.state import SILENCE_S, ConsoleState
from hybridvla_ros.messages.images import stored_as_rgb, to_jpeg, to_rgb
from hybridvla_ros.messages.services import ANSWER_S, EPISODE_S, ask

#: How long the answer to a button may take, s, where it comes only after the robot has moved or the recorder has done its part.
#: page.js waits longer than that.
SLOW = {"go_to_start": 120.0, "reenter": 120.0, **{f"episode_{name}": seconds + ANSWER_S for name, seconds in EPISODE_S.items()}}
TRIGGERS = {"stop": STOP, "resume": RESUME, "reenter": REENTER, "go_to_start": GO_TO_START,
            **{f"episode_{name}": f"/hybridvla/episode/{name}" for name in EPISODE_S}}
Picture = Union[Image, CompressedImage]
Answer = Tuple[bool, str]


def listen(state: ConsoleState) -> List[rospy.Subscriber]:
    """Subscribes a state to everything it is made of."""
    return [rospy.Subscriber(STATUS, SafetyStatus, state.on_status, queue_size=5),
            rospy.Subscriber(HEARTBEAT, PolicyHeartbeat, state.on_heartbeat, queue_size=5),
            rospy.Subscriber(PROPOSAL, ActionProposal, state.on_proposal, queue_size=5),
            rospy.Subscriber(INSTRUCTION, String, lambda message: state.on_instruction(message.data),
                             queue_size=5),
            rospy.Subscriber(EPISODE_EVENT, EpisodeEvent, state.on_event, queue_size=5)]


class Desk:
    """What the page may see and do. clock: returns monotonic time, s."""

    def __init__(self, cameras: Tuple[CameraSource, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.state = ConsoleState()
        self.views = tuple(camera.view for camera in cameras)
        self._images: Dict[str, Tuple[Picture, float]] = {}      # the newest of each view, and when it came
        self._unshown: Dict[str, str] = {}
        self._lock = threading.Lock()
        self._subscribers = listen(self.state) + [
            rospy.Subscriber(camera.image_topic, CompressedImage if camera.compressed else Image, self._on_image(camera.view),
                             queue_size=1, buff_size=1 << 24) for camera in cameras]

    def snapshot(self) -> Dict[str, Any]:
        """Returns everything shown. A view without an image for a second is listed as silent; one whose image cannot be decoded
        is listed as unshown, with the reason."""
        return {**self.state.snapshot(), "views": list(self.views), "unshown_views": dict(self._unshown),
                "silent_views": [view for view in self.views if self._present(view) is None]}

    def picture(self, view: str) -> Optional[bytes]:
        """Returns the newest image of a view as JPEG; None where there is none, an old one, or one that cannot be shown."""
        message = self._present(view)
        if message is None:
            return None
        if isinstance(message, CompressedImage) and _as_browsers_read(message.format):
            return bytes(message.data)
        try:
            pixels = to_rgb(message, view)
        except ObservationError as error:
            self._unshown[view] = str(error)
            return None
        self._unshown.pop(view, None)
        return bytes(to_jpeg(pixels, rospy.Time(), "", 70).data)

    def _present(self, view: str) -> Optional[Picture]:
        with self._lock:
            message, came = self._images.get(view, (None, -math.inf))
        return message if self._clock() - came <= SILENCE_S else None

    def act(self, name: str, text: str = "") -> Answer:
        """Calls the service behind a button. Returns whether it was done, and what the service says."""
        try:
            if name in TRIGGERS:
                answer = ask(TRIGGERS[name], Trigger, answer_s=SLOW.get(name, ANSWER_S))
            elif name in ("activate", "deactivate"):
                answer = ask(ACTIVATE, SetBool, name == "activate")
            elif name == "instruction":
                answer = ask(SET_INSTRUCTION, SetInstruction, text, False)
            else:
                return False, f"there is no {name}"
        except (rospy.ROSException, rospy.ServiceException) as error:
            advice = "use the robot's own switch" if name == "stop" else "does its node run?"
            return False, f"the service does not answer ({error}); {advice}"
        return bool(answer.success), str(answer.message)

    def _on_image(self, view: str) -> Callable[[Picture], None]:
        def keep(message: Picture) -> None:
            with self._lock:
                self._images[view] = message, self._clock()
        return keep


def _as_browsers_read(form: str) -> bool:
    """Tells whether a compressed message is a JPEG with the colours where a browser looks for them."""
    return "jpeg" in form and "bayer" not in form and not stored_as_rgb(form)
