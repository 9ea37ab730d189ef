"""A private ROS graph for the demo and the tests: its own master on a free loopback port, its own logs, one clean end."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.leftovers import descendants, end_all, marked

#: Environment variable that every process of a graph carries.
MARK = "HYBRIDVLA_GRAPH"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refuse_used_port(port: int) -> None:
    """Raises HybridVLAError when something already listens there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise HybridVLAError(f"port {port} is already used, probably by another ROS master; choose another with --port "
                                 "or leave it out")


class Graph:
    """Environment and processes of one graph. Use as a context manager: leaving it ends every process."""

    def __init__(self, folder: Path, port: Optional[int] = None) -> None:
        if port is not None:
            refuse_used_port(port)
        self.port = port or free_port()
        # Absolute: nodes start in their own folder.
        self.folder = folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.environment: Dict[str, str] = {
            MARK: self._mark,
            "ROS_MASTER_URI": f"http://127.0.0.1:{self.port}", "ROS_IP": "127.0.0.1", "ROS_HOME": str(folder / "ros"),
            "ROS_LOG_DIR": str(folder / "ros" / "log"), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
        os.environ.pop("ROS_HOSTNAME", None)
        os.environ.update(self.environment)
        self._processes: List[subprocess.Popen] = []

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self, command: Sequence[str], log: str) -> subprocess.Popen:
        """Starts a process of the graph; its output goes to `log` in the folder."""
        with open(self.folder / log, "ab") as stream:
            process = subprocess.Popen(list(command), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        self._processes.append(process)
        return process

    def launch(self, *arguments: str) -> subprocess.Popen:
        """Runs `roslaunch hybridvla ...` with this graph's master."""
        return self.start(["roslaunch", "-p", str(self.port), "hybridvla", *arguments], "launch.log")

    def end(self, process: subprocess.Popen, patience: float = 20.0) -> None:
        """Interrupts a process as Ctrl-C does, and kills it if it does not react. What it has started ends with it."""
        started = descendants(process.pid)
        for number, wait in ((signal.SIGINT, patience), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if process.poll() is None:
                try:
                    os.killpg(process.pid, number)
                    process.wait(wait)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
        end_all(started)

    def stop(self) -> None:
        """Ends every process of the graph, including those whose parent was killed or died."""
        for process in reversed(self._processes):
            self.end(process)
        self._processes.clear()
        end_all(marked(MARK, self._mark))

    def log_tail(self, log: str = "launch.log", lines: int = 12) -> str:
        path = self.folder / log
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def wait_for_master(self, timeout: float = 20.0) -> None:
        import rosgraph

        deadline = time.monotonic() + timeout
        while not rosgraph.is_master_online():
            if time.monotonic() > deadline:
                raise HybridVLAError(f"the ROS master did not start on port {self.port}:\n{self.log_tail()}")
            time.sleep(0.1)
