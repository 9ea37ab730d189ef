"""`PolicyServer`: one policy for clients of the openpi wire."""
from __future__ import annotations

import hmac
import http
import logging
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Set, Tuple, Union

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.sync.server import Server, ServerConnection, serve

from hybridvla_core.configuration import in_range, require
from hybridvla_core.errors import ConfigurationError, DeviceError, HybridVLAError
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.remote.dialect import Dialect
from hybridvla_core.policy.remote.handshake import Handshake
from hybridvla_core.policy.remote.settings import LOOPBACK, SHORTEST_KEY
from hybridvla_core.policy.remote.wire import MAX_FRAME, pack, unpack

LOG = logging.getLogger(__name__)
HEALTH = "/healthz"
OPEN_S, FAREWELL_S = 5.0, 1.0
#: The server drops a client whose computer has vanished after IDLE_S + PROBES * PROBE_S: older library releases do not ping.
IDLE_S, PROBE_S, PROBES = 10, 5, 3


@dataclass(frozen=True)
class ServerSettings:
    """Address and access rules of a server.

    Attributes:
        host: IPv4 address, or a name that has one.
        port: TCP port.
        key: Key that clients have to show; empty only on this computer.
        certificate: Certificate file for TLS.
        private_key: Private key file for TLS.
        insecure_lan: Whether another computer may connect without TLS.
        most_clients: Largest number of simultaneous connections.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str = ""
    certificate: Optional[Path] = None
    private_key: Optional[Path] = None
    insecure_lan: bool = False
    most_clients: int = 4

    def __post_init__(self) -> None:
        require(":" not in self.host, f"the server listens at IPv4 addresses and names, and {self.host} is neither; write "
                "127.0.0.1 for this computer alone, or 0.0.0.0 for all of its addresses")
        in_range("port", self.port, 0, 65535)
        in_range("most_clients", self.most_clients, 1, 64)
        require((self.certificate is None) == (self.private_key is None), "TLS needs both a certificate and its private key")
        if self.host not in LOOPBACK:
            require(len(self.key) >= SHORTEST_KEY,
                    f"{self.host} lets other computers connect; name a key file that they have to show")
            require(self.certificate is not None or self.insecure_lan,
                    f"{self.host} lets other computers connect; name a TLS certificate and its key, or say --insecure-lan where "
                    "only your two computers are on that network")

    def context(self) -> Optional[ssl.SSLContext]:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(str(self.certificate), str(self.private_key))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"certificate {self.certificate} with key {self.private_key} cannot be used "
                                     f"({error})") from error
        return context


class PolicyServer:
    """Listens from its construction on; `serve_forever` answers until `close`. One prediction at a time.

    A device that fails during a prediction ends the server: no later prediction could succeed, and a supervisor can restart
    the server.

    Raises:
        ConfigurationError: the dialect cannot carry the policy's numbers, or the address is not available.
    """

    def __init__(self, policy: PolicyInterface, dialect: Dialect, settings: ServerSettings) -> None:
        dialect.check(policy)
        self._policy, self._dialect, self._settings = policy, dialect, settings
        self._predicting = threading.Lock()
        self._clients = threading.BoundedSemaphore(settings.most_clients)
        self._open: Set[ServerConnection] = set()
        self._lost = ""         # why the device can no longer be used
        self._metadata = pack(Handshake.of(policy).metadata())
        self._turn, self._serving, self._closed, self._ending = threading.Lock(), False, False, False
        try:
            self._server: Server = serve(self._converse, settings.host, settings.port, ssl=settings.context(), origins=[None],
                                         process_request=self._admit, open_timeout=OPEN_S, close_timeout=FAREWELL_S,
                                         max_size=MAX_FRAME,
                                         compression=None, logger=logging.getLogger("websockets.server"))
        except OSError as error:
            raise ConfigurationError(f"{settings.host}:{settings.port} cannot be listened at ({error}); is a server running "
                                     "there already?") from error

    @property
    def address(self) -> Tuple[str, int]:
        name = self._server.socket.getsockname()
        return str(name[0]), int(name[1])

    def serve_forever(self) -> None:
        """Answers until `close`; returns at once if `close` came first.

        Raises:
            DeviceError: The device failed during a prediction; the client has been told, and the address is free.
        """
        with self._turn:
            if self._closed:
                return
            self._serving = True
        self._server.serve_forever()
        if self._lost:
            raise DeviceError(self._lost)

    def close(self) -> None:
        """Ends the conversations and releases the address, whether or not anything was served."""
        with self._turn:
            serving, self._closed = self._serving, True
        if not serving:
            self._server.socket.close()      # shutdown would wait for the end of a loop that never began
            return
        self._server.shutdown()
        # Before release 15 the library leaves conversations open at the end, and the process would wait for its clients to leave.
        farewells = [threading.Thread(target=connection.close, args=(1001,), daemon=True) for connection in list(self._open)]
        for farewell in farewells:
            farewell.start()
        for farewell in farewells:
            farewell.join(2 * FAREWELL_S)

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Optional[Response]:
        """Returns None to let the handshake continue. Health says only that predictions are available."""
        if self._lost:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "the device has failed\n")
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._settings.key:
            shown = request.headers.get("Authorization") or ""
            if not hmac.compare_digest(shown.encode("utf-8", "replace"), f"Api-Key {self._settings.key}".encode()):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "show the key: Authorization: Api-Key ...\n")
        return None

    def _converse(self, connection: ServerConnection) -> None:
        if not self._clients.acquire(blocking=False):
            connection.close(1013, "too many clients")
            return
        self._open.add(connection)
        try:
            _give_up_the_vanished(connection.socket)
            connection.send(self._metadata)
            before_ms = 0.0
            for frame in connection:
                began = time.monotonic()
                connection.send(self._answer(frame, before_ms))
                before_ms = 1e3 * (time.monotonic() - began)
                if self._lost:
                    return
        except (ConnectionClosed, OSError):
            pass    # a client may leave at any time, even before it is told that the device has failed
        finally:
            self._open.discard(connection)
            self._clients.release()
            if self._lost:
                self._end()

    def _end(self) -> None:
        """Closes once, in a thread of its own: closing waits for the end of the conversations."""
        with self._turn:
            if self._ending:
                return
            self._ending = True
        threading.Thread(target=self.close, name="policy server ends", daemon=True).start()

    def _answer(self, frame: object, before_ms: float) -> Union[bytes, str]:
        """Returns the answer to a frame: bytes, or a text that says what is wrong, which openpi clients raise."""
        try:
            require(isinstance(frame, bytes), "a text came where a msgpack frame is wanted")
            request = self._dialect.read_request(unpack(frame), self._policy)  # type: ignore[arg-type]
            with self._predicting:
                if self._lost:
                    return self._lost
                began = time.monotonic()
                prediction = self._policy.predict(request.observation, mode=request.mode, seed=request.seed)
                took_ms = 1e3 * (time.monotonic() - began)
            answer: Dict[str, Any] = dict(self._dialect.reply(prediction, self._policy, request.observation.stamp_ns))
            answer["server_timing"] = {"infer_ms": took_ms, "prev_total_ms": before_ms}
            return pack(answer)
        except DeviceError as error:
            self._lost = str(error)
            return self._lost
        except HybridVLAError as error:
            return str(error)
        except Exception:  # details of an internal error are for our own log; a client only learns that there was one
            LOG.exception("a prediction failed")
            return "the prediction failed; look at the server's log"


def _give_up_the_vanished(client: socket.socket) -> None:
    """Lets the kernel end a connection whose other end vanished silently; otherwise its slot would stay taken for ever."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", IDLE_S), ("TCP_KEEPINTVL", PROBE_S), ("TCP_KEEPCNT", PROBES),
                        ("TCP_USER_TIMEOUT", 1000 * (IDLE_S + PROBES * PROBE_S))):
        if hasattr(socket, name):       # Linux has all of them
            client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
