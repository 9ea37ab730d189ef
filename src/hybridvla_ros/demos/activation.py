"""How the operator of a simulated rig makes the filter act, also after a stop."""
from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Union

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.patience import patience

if TYPE_CHECKING:
    from std_srvs.srv import SetBoolResponse, TriggerResponse

WILLING_S = 10.0
#: Most stops in an episode: a computer that is too busy now and then may go on, one that always is may not.
MOST_STOPS = 3
#: Checks in a row that must find the task done: what rolls through its goal is not there yet.
LOOKS = 3


def when_willing(name: str, ask: Callable[[], Union[SetBoolResponse, TriggerResponse]], resume: Callable[[], TriggerResponse],
                 seconds: float = WILLING_S) -> None:
    """Asks the filter until it is willing; acknowledges whatever has stopped it.

    Right after a scene was set, the filter still sees the old pose, and a busy computer may have stopped it.

    Args:
        name: Name of the service, for the sentence.
        ask: Calls `activate` or `go_to_start`.
        resume: Calls `resume`.
        seconds: How long it may refuse, s.

    Raises:
        HybridVLAError: It refuses for longer; the message is its own sentence.
    """
    deadline = time.monotonic() + patience(seconds)
    while True:
        answer = ask()
        if answer.success:
            return
        if time.monotonic() > deadline:
            raise HybridVLAError(f"{name}: {answer.message}")
        resume()
        time.sleep(0.2)
