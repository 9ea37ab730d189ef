"""`operator_page_node`: serves the page on this computer only. To see it from elsewhere: `ssh -L 8765:127.0.0.1:8765 ROBOT`."""
from __future__ import annotations

import secrets
import socket

import rospy
import uvicorn

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.policy.cameras import CameraRig
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros.console.operator.app import DeskInterface, application
from hybridvla_ros.console.operator.desk import Desk
from hybridvla_ros.runtime.node_support import number_parameter, package_path, require_parameter
from hybridvla_ros.runtime.workers import start_worker

#: How a launch chooses the port.
ARGUMENT = "page_port:= (port:= of page.launch)"


class PageServer:
    """Serves the page in its own thread. port: 0 for any free one."""

    def __init__(self, desk: DeskInterface, port: int, token: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OverflowError as error:
            raise HybridVLAError(f"port {port} is not a port; set {ARGUMENT} to a number from 0 (any free one) to "
                                 "65535") from error
        except OSError as error:
            raise HybridVLAError(f"port {port} cannot be used ({error.strerror}); is another page running? Choose another with "
                                 f"{ARGUMENT}") from error
        self._socket.listen(16)     # a client may read the address and come before the page is up; it waits
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(
            application(desk, token), log_level="error", access_log=False, lifespan="off", ws_max_size=1 << 16,
            timeout_graceful_shutdown=1, server_header=False))

    def run(self) -> None:
        """Serves until `stop`."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True


def main() -> None:
    config = load_file(PolicyConfig, package_path(require_parameter("policy_config")))
    cameras = str(rospy.get_param("~cameras", "")).strip()
    if cameras:
        config = config.with_cameras(load_file(CameraRig, package_path(cameras)))
    token = secrets.token_urlsafe(24)
    server = PageServer(Desk(config.cameras), int(number_parameter("port", 8765)), token)
    start_worker("the page", server.run)
    # Printed, not logged: the token must not be in any file.
    print(f"\noperator page: http://127.0.0.1:{server.port}/#{token}\n", flush=True)
    rospy.on_shutdown(server.stop)
    rospy.spin()
