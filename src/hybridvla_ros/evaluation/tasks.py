"""Tasks on their own graph: the simulated rig's launch file for each, its episodes, and its end."""
from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.private_graph import Graph

if TYPE_CHECKING:
    from hybridvla_ros.evaluation.operator import TaskOperator
    from hybridvla_sim.task import EpisodeSpec, Task

#: Rig name -> launch file with its arguments, and namespace of the rig's own services.
LAUNCHES = {"fr3": (("sim.launch",), "/sim_rig"), "agilex": (("agilex.launch", "rig:=stand_in"), "/piper_rig")}


@dataclass(frozen=True)
class Request:
    """What acts, and in which rig.

    Attributes:
        rig: `fr3` or `agilex`.
        checkpoint: Folder of the checkpoint; empty: the task's own expert.
        mode: Mode of the policy.
        policy_config: File of the policy's configuration.
        robot_config: File of the robot's configuration.
        logs: Folder for the output of the nodes.
    """

    rig: str
    checkpoint: str
    mode: str
    policy_config: Path
    robot_config: Path
    logs: Path

    def __post_init__(self) -> None:
        if self.rig not in LAUNCHES:
            raise HybridVLAError(f"rig {self.rig!r} has no simulated graph; use {' or '.join(LAUNCHES)}")

    def launch(self, task: Task, seed: int) -> List[str]:
        """Returns the arguments of roslaunch for a task, with the first scene drawn from `seed`."""
        acting = "expert:=true" if not self.checkpoint else f"checkpoint:={Path(self.checkpoint).resolve()}"
        more = [f"variation:={task.variation}"] if task.variation else []
        mode = [f"mode:={self.mode}"] if self.checkpoint else []
        return [*LAUNCHES[self.rig][0], f"task:={task.name}", f"seed:={seed}", f"policy_config:={self.policy_config}",
                f"robot_config:={self.robot_config}", acting, *mode, *more]


class Launched:
    """A master that runs one task after the other. Use as a context manager: leaving it ends every process.

    rospy knows one master per process, so a process has at most one of these.

    Args:
        request: What acts, and where.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._graph: Optional[Graph] = None
        self._operator: Optional[TaskOperator] = None
        self._process: Optional[subprocess.Popen] = None
        self._task: Optional[Task] = None

    def __enter__(self) -> Launched:
        import rospy

        self._graph = Graph(self._request.logs)
        try:
            self._graph.start(["roscore", "-p", str(self._graph.port)], "roscore.log")
            self._graph.wait_for_master()
            rospy.init_node("hybridvla_evaluate", anonymous=True, disable_signals=True)
        except BaseException:
            self._graph.stop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._operator is not None:
            self._operator.close()
        if self._graph is not None:
            self._graph.stop()

    def run(self, task: Task, specs: Sequence[EpisodeSpec], progress: Callable[[Dict[str, Any]], None]) -> List[Dict[str, Any]]:
        """Runs episodes of a task; keeps the launch while the next episodes are of the same task.

        Args:
            task: Task with its variation.
            specs: One specification per episode.
            progress: Called with each episode as it ends.

        Returns:
            The episodes in the form of `hybridvla_sim.suite.run_suite`; nobody compares predictions with the expert's.

        Raises:
            HybridVLAError: The rig does not come up, a node ends, or the filter refuses for good: no failure of the policy.
        """
        import rospy

        results: List[Dict[str, Any]] = []
        for spec in specs:
            operator = self._up(task, spec.seed)
            try:
                results.append(operator.episode(task, spec))
            except (rospy.ServiceException, HybridVLAError) as error:
                raise self._told(f"task {task.name}, seed {spec.seed}: {error}") from error
            progress(results[-1])
        return results

    def _up(self, task: Task, seed: int) -> TaskOperator:
        """Returns the rig with this task and launches it unless it already runs."""
        assert self._graph is not None, "enter it first"
        if self._operator is not None and self._task is task and self._process is not None and self._process.poll() is None:
            return self._operator
        if self._process is not None:
            self._graph.end(self._process)
        self._task, self._process = task, self._graph.launch(*self._request.launch(task, seed))
        import rospy

        from hybridvla_ros.evaluation.operator import TaskOperator

        try:
            if self._operator is None:
                self._operator = TaskOperator(LAUNCHES[self._request.rig][1], self._process)
            self._operator.meet(self._process)
        except (rospy.ROSException, HybridVLAError) as error:
            raise self._told(f"task {task.name}: the rig did not come up ({error})") from error
        return self._operator

    def _told(self, problem: str) -> HybridVLAError:
        assert self._graph is not None, "enter it first"
        return HybridVLAError(f"{problem}; the end of {self._graph.folder / 'launch.log'}:\n{self._graph.log_tail()}")
