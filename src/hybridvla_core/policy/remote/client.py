"""`RemotePolicy`: a policy as defined in policy/interface.py, whose model runs behind a connection."""
from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Optional, Tuple, Union

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import ConfigurationError, ObservationError, WireError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.remote.dialect import Dialect, OwnDialect, PoseDialect
from hybridvla_core.policy.remote.handshake import Handshake
from hybridvla_core.policy.remote.link import Link, RefusedError
from hybridvla_core.policy.remote.settings import RemoteSource
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_core.waiting import Event

AGAIN_S = 0.5
LOG = logging.getLogger(__name__)


class RemotePolicy:
    """A policy whose predictions come from a server. Once connected, it reconnects whenever the link is lost, and refuses a
    server that has become another one meanwhile.

    Args:
        source: address, key and times of the server.
        root: folder to which the files of `source` are relative.

    Raises:
        LinkError: no server within `source.connect_timeout_s`.
        ConfigurationError: the server's description of its policy cannot be used, or names another checkpoint than requested.
    """

    def __init__(self, source: RemoteSource, root: Path = ROOT) -> None:
        self._source, self._root = source, root
        self._dialect: Dialect = load_file(PoseDialect, root / source.dialect) if source.dialect else OwnDialect()
        self._closed = Event()
        self._refused = ""
        self._link, self._handshake = self._first()
        threading.Thread(target=self._stay_connected, name="policy reconnects", daemon=True).start()

    @property
    def convention(self) -> ActionConvention:
        return self._handshake.convention

    @property
    def cameras(self) -> Tuple[str, ...]:
        return self._handshake.cameras

    @property
    def chunk(self) -> Optional[int]:
        return self._handshake.chunk

    @property
    def manifest_sha256(self) -> str:
        return self._handshake.checkpoint_sha256

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Predicts on the server. Raises ObservationError if anything keeps it from answering or if its answer is unusable."""
        problem = self.link_problem()
        if problem:
            raise ObservationError(problem)
        link = self._link
        began = time.monotonic()
        try:
            answer = link.request(self._dialect.request(observation, mode, seed))
        except WireError as error:
            raise ObservationError(f"the remote policy: {error}") from error
        try:
            prediction = self._dialect.read_reply(answer, self.convention, int(observation.stamp_ns))
        except WireError as error:
            link.close(f"the remote policy cannot be trusted: {error}")     # the next answer would belong to this question
            raise ObservationError(f"the remote policy: {error}") from error
        prediction.stage_ms.setdefault("remote", 1e3 * (time.monotonic() - began))
        return prediction

    def link_problem(self) -> str:
        """Returns why this policy may not be asked now: the node reports it as FAULT, and the filter holds the arm."""
        return self._refused or self._link.problem()

    def close(self) -> None:
        self._closed.set()
        self._link.close()

    def _first(self) -> Tuple[Link, Handshake]:
        """Waits for a server that is still loading its model."""
        until = time.monotonic() + self._source.connect_timeout_s
        while True:
            try:
                return self._open()
            except RefusedError:
                raise
            except WireError as error:
                if time.monotonic() > until:
                    raise
                LOG.warning("%s; trying again", error)
                time.sleep(AGAIN_S)

    def _open(self) -> Tuple[Link, Handshake]:
        link = Link(self._source, self._root)
        try:
            if isinstance(self._dialect, PoseDialect):
                handshake = Handshake("", self._dialect.cameras, self._dialect.meaning, answers_pings=False)
            else:
                handshake = Handshake.read(link.metadata, self._source.url)
            wanted = self._source.checkpoint_sha256
            if wanted and handshake.checkpoint_sha256 != wanted:
                raise ConfigurationError(f"{self._source.url} serves checkpoint {handshake.checkpoint_sha256[:12] or 'unknown'}, "
                                         f"and remote.checkpoint_sha256 asks for {wanted[:12]}; serve that one, or change this")
        except ConfigurationError:
            link.close("refused")
            raise
        link.answers_pings = handshake.answers_pings
        return link, handshake

    def _stay_connected(self) -> None:
        while not self._closed.wait(0.02):
            if not self._link.ended:
                continue
            try:
                link, handshake = self._open()
            except Exception as error:  # without this thread the link would never come back, whatever the error was
                expected = isinstance(error, (WireError, ConfigurationError))
                LOG.warning("%s; trying again", error if expected else f"{self._source.url}: {type(error).__name__}: {error}",
                            exc_info=not expected)
                self._closed.wait(AGAIN_S)
                continue
            changes = self._handshake.differences(handshake)
            self._refused = (f"{self._source.url} serves another policy than before: {'; '.join(changes)}; start the policy node "
                             "anew if that is meant") if changes else ""
            self._link = link


def connected(source: Optional[RemoteSource]) -> RemotePolicy:
    """Returns the policy of a configuration whose backend is `remote`."""
    if source is None:
        raise ConfigurationError("backend is 'remote', but no server is named; write remote.url into the policy configuration")
    return RemotePolicy(source)
