"""One connection to a policy server: handshake, requests with a deadline, and pings that detect a hung server."""
from __future__ import annotations

import inspect
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from typing import Any, Dict, Optional

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from hybridvla_core.errors import ConfigurationError, WireError
from hybridvla_core.policy.remote.settings import RemoteSource, read_key
from hybridvla_core.policy.remote.wire import MAX_FRAME, pack, unpack
from hybridvla_core.waiting import wait_until

PING_S = 0.05
#: Longest wait for a connection and its metadata, s; longest part of a server's own message that is repeated, characters.
OPEN_S, WORDS = 5.0, 300
#: Connect to the named server directly: newer libraries would use the desktop's proxy, older ones do not support proxies.
DIRECT: Dict[str, Any] = {"proxy": None} if "proxy" in inspect.signature(connect).parameters else {}


class LinkError(WireError):
    """The connection cannot be made or can no longer be used; another connection may work."""


class RefusedError(LinkError):
    """Something answered and refused the connection with a status; asking again does not help."""


class Link:
    """An open connection. Raises LinkError if it cannot be opened; `metadata` is the server's first message.

    answers_pings: see `Handshake`; the reader of the metadata sets it. Requests come from one thread at a time.
    """

    def __init__(self, source: RemoteSource, root: Path) -> None:
        self._source, self.answers_pings = source, False
        self._problem = ""
        self._socket = self._connect(root)
        # A server that no longer reads would block a sender for ever, and the sender holds what pings need as well.
        seconds, rest = divmod(source.deadline_s, 1.0)
        self._socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
        self.heard = time.monotonic()
        try:
            self.metadata = self._receive(OPEN_S, "its metadata")
        except WireError:
            self.close("no metadata came")
            raise
        threading.Thread(target=self._ping, name="policy link", daemon=True).start()

    def _connect(self, root: Path) -> ClientConnection:
        source = self._source
        headers = {"Authorization": f"Api-Key {read_key(root / Path(source.key_file).expanduser())}"} if source.key_file else {}
        context = _context(source, root)
        try:
            return connect(source.url, additional_headers=headers, ssl=context, open_timeout=OPEN_S, close_timeout=0.5,
                           max_size=MAX_FRAME, compression=None, **DIRECT)
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (502, 503, 504):       # from the server, or from a proxy in front of it
                raise LinkError(f"{source.url} answers with status {status}: the server is ending or its device has failed; "
                                "restart it") from error
            advice = "check remote.key_file" if status in (401, 403) else "is it a policy server?"
            raise RefusedError(f"{source.url} refuses the connection with status {status}; {advice}") from error
        except ssl.SSLError as error:
            raise LinkError(f"{source.url}: the encryption failed ({str(error)[:WORDS]}); check remote.certificate") from error
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError) as error:
            raise LinkError(f"{source.url} cannot be reached ({str(error)[:WORDS] or type(error).__name__}); is `hybridvla "
                            "serve` running there?") from error

    def request(self, message: Dict[str, Any]) -> Dict[str, object]:
        """Asks one question and waits for the answer.

        Args:
            message: The question.

        Returns:
            The answer.

        Raises:
            LinkError: No answer in time, or the connection ended; it is closed.
            WireError: The server refused, or its answer cannot be read.
        """
        frame = pack(message)
        if self._problem:
            raise LinkError(self._problem)
        try:
            self._socket.send(frame)
        except ConnectionClosed as error:
            raise self._broken(f"the connection to {self._source.url} ended ({_why(error)})") from error
        return self._receive(self._source.deadline_s, "an answer")

    def _receive(self, wait: float, what: str) -> Dict[str, object]:
        url = self._source.url
        try:
            frame = self._socket.recv(timeout=wait)
        except TimeoutError as error:
            raise self._broken(f"{url} sent no more than silence for {wait:g} s where {what} was due; it hangs or is too "
                               "slow") from error
        except ConnectionClosed as error:
            raise self._broken(f"the connection to {url} ended ({_why(error)})") from error
        if isinstance(frame, str):
            last = (frame.strip().splitlines() or ["nothing"])[-1]      # a plain openpi server sends its traceback
            raise WireError(f"{url} says: {last[:WORDS]}")
        try:
            return unpack(frame)
        except WireError as error:
            raise self._broken(f"{url}: {error}") from error

    def problem(self) -> str:
        """Returns why no motion can be requested over this link now; empty while the link is alive."""
        if self._problem:
            return self._problem
        silent = time.monotonic() - self.heard
        if self.answers_pings and silent > self._source.link_timeout_s:
            return f"{self._source.url} has been silent for {silent:.1f} s"
        return ""

    @property
    def ended(self) -> bool:
        return bool(self._problem)

    def close(self, why: str = "closed") -> None:
        self._broken(why)

    def _broken(self, why: str) -> LinkError:
        if not self._problem:
            self._problem = why
            threading.Thread(target=self._socket.close, daemon=True).start()    # this waits for the other end, which may be dead
        return LinkError(self._problem)

    def _ping(self) -> None:
        """Notes when the other end was last heard, and when the connection is gone, even while there are no requests."""
        try:
            pong = self._socket.ping()
            while not self._problem:
                if wait_until(pong.is_set, PING_S):
                    self.heard = time.monotonic()
                    time.sleep(PING_S)
                    pong = self._socket.ping()
                elif self._socket.protocol.state is not State.OPEN:
                    self._broken(f"the connection to {self._source.url} ended")
                elif time.monotonic() - self.heard > self._source.deadline_s + OPEN_S:
                    self._broken(f"{self._source.url} has been silent for {self._source.deadline_s + OPEN_S:g} s")
        except (ConnectionClosed, OSError) as error:
            self._broken(f"the connection to {self._source.url} ended ({_why(error)})")


def _context(source: RemoteSource, root: Path) -> Optional[ssl.SSLContext]:
    if not source.encrypted:
        return None
    try:
        file = str(root / Path(source.certificate).expanduser()) if source.certificate else None
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"remote: certificate {source.certificate} cannot be read ({error}); copy the "
                                 "server's") from error


def _why(error: BaseException) -> str:
    return str(error).strip()[:WORDS] or type(error).__name__
