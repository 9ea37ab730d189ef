"""Chooses the images of an observation: the newest set that the arms' states reach up to, and why it is not the newest."""
from __future__ import annotations

import math
from typing import Generic, Optional, Tuple

from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_ros.observation.camera_health import AHEAD_S
from hybridvla_ros.observation.camera_sync import CameraSync, ImageSet, MessageT

#: Images this far ahead of the arms' states, s, are waited for: states of the same moment are on their way. At most half the
#: time between two images; otherwise the next images would always be there first.
WAIT_S = 0.02
#: A lag of the states behind the images, s, too long to mean only that states of the same moment are on their way.
BEHIND_S = 0.04


class CoveredImages(Generic[MessageT]):
    """The choice that both the live node and replay make, so that they observe the same.

    Where stamps of images are ahead of those of the arms (a camera's clock, or the robot's), the newest images always wait for
    states. Older images that states have reached are used then; `remark` says why.
    """

    def __init__(self, sync: CameraSync[MessageT], proposer: Proposer) -> None:
        self._sync, self._proposer = sync, proposer
        #: Why images are older than they say, or why the newest are not used; or an empty string.
        self.remark = ""
        #: Why there is nothing to observe although images are here, and waiting a moment does not help; or an empty string.
        self.problem = ""

    def choose(self, newest: ImageSet[MessageT], now: float) -> Optional[ImageSet[MessageT]]:
        """Returns the set to observe; None while there is none that states have reached. now: s, on the clock of the stamps."""
        self.problem = ""
        stamp, reached = newest.stamp_ns * 1e-9, self._proposer.covered_until
        lead = stamp - reached
        covered = self._proposer.covers(stamp)
        if not covered and lead <= min(WAIT_S, 0.5 * self._sync.period_s or WAIT_S):
            return None
        view, ahead = self._ahead()
        found = newest if covered else self._sync.latest(now, until_ns=int(reached * 1e9))[0] if reached > 0.0 else None
        if found is None:
            self.remark, self.problem = "", self._uncovered(reached, lead)
        elif view:
            self.remark = (f"camera {view}: its stamps are {ahead:.3f} s ahead of this computer's clock, so its images are "
                           "that much older than they say; synchronise the clocks")
        else:
            self.remark = "" if covered or lead <= BEHIND_S else (
                f"the arms' states are {lead:.3f} s behind the images by their stamps, so older images are used; check the "
                "clocks, and the rate of the joint states")
        return found

    @staticmethod
    def _uncovered(reached: float, lead: float) -> str:
        """Says why no image is as old as the arms' states."""
        if reached == -math.inf:
            return ("not every arm has said where it is; do the drivers run, and publish the joint states that the robot file "
                    "names?")
        if reached <= 0.0:
            return "the arms' joint states carry no time; their driver must set the stamp of each message"
        return (f"the arms' states are {lead:.3f} s behind the images by their stamps, and no image is as old: nothing is "
                "predicted; check that the arms' drivers run, and the clocks")

    def _ahead(self) -> Tuple[str, float]:
        """Returns the view whose stamps are farthest ahead of its arrivals, and by how much, s; an empty string where none is."""
        leads = {view: -health.lag_s for view, health in self._sync.health.items()}
        view = max(leads, key=lambda name: leads[name] if leads[name] == leads[name] else float("-inf"))
        return (view, leads[view]) if leads[view] > AHEAD_S else ("", 0.0)
