"""Records demonstrations of a variation in the simulated rig, over ROS, as a lab does: the first step of `make field-training`.

`sim.launch expert:=true` and `record.launch teleop:=none` run on a private graph; instructions, episodes and labels go through
their services. The task's expert takes the place of a lab's person with a SpaceMouse. Earlier recordings count, so the
same command continues where it was ended.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Tuple

import yaml

from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import append_line
from hybridvla_core.paths import ROOT
from hybridvla_core.safety.status import State
from hybridvla_ros.demos import activation
from hybridvla_ros.demos.command import carry_out
from hybridvla_ros.messages.conversions import status_contract
from hybridvla_ros.runtime.patience import patience
from hybridvla_ros.runtime.private_graph import Graph

if TYPE_CHECKING:
    from hybridvla.msg import SafetyStatus

RECORDING = ROOT / "config/recording/sim_fr3.yaml"
ROBOT, POLICY = ROOT / "config/robots/sim_fr3.yaml", "config/policies/tiny.yaml"
#: On a busy computer a simulation may stand still this long while it moves, and in total in a bag, s: its time stands still
#: as well. For a real robot the configured times hold.
STANDSTILL_S, LONGEST_SILENCE_S = 1.0, 6.0
EPISODE_TIMEOUT_S = 60.0
IMAGE_HZ = 5.0               # the expert needs no pictures; five a second are enough to learn from
MOST_FAILURES = 10
#: JSON lines: scenes that were used, and their results.
SCENES = "scenes.jsonl"


class Operator:
    """Resets the scene, gives the instruction and labels the result; by services only."""

    def __init__(self) -> None:
        import rospy
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.msg import SafetyStatus
        from hybridvla.srv import ResetScene, RigReport, SetInstruction

        rospy.init_node("field_record", anonymous=True, disable_signals=True)
        wanted = {"/hybridvla/policy/set_instruction": SetInstruction, "/hybridvla/safety/activate": SetBool,
                  "/sim_rig/reset_scene": ResetScene, "/sim_rig/report": RigReport, "/hybridvla/episode/start": Trigger,
                  "/hybridvla/episode/success": Trigger, "/hybridvla/episode/failure": Trigger,
                  "/hybridvla/episode/discard": Trigger, "/hybridvla/safety/resume": Trigger}
        for name in wanted:
            rospy.wait_for_service(name, timeout=patience(60.0))
        self._services = {name: rospy.ServiceProxy(name, kind) for name, kind in wanted.items()}
        self._state: Optional[State] = None
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status, queue_size=1)

    def _on_status(self, status: SafetyStatus) -> None:
        self._state = status_contract(status).state

    def call(self, name: str, *arguments: object) -> bool:
        """Calls a service and returns its `task_done`, if it has one; HybridVLAError says why it refuses."""
        answer = self._services[name](*arguments)
        if not answer.success:
            raise HybridVLAError(f"{name}: {answer.message}")
        return bool(getattr(answer, "task_done", False))

    def activate(self) -> None:
        """Activates as soon as the filter is willing.

        Right after a scene was set it still sees the old pose, and what stopped it in the last episode needs acknowledging.

        Raises:
            HybridVLAError: The filter is not willing for a while.
        """
        activation.when_willing("activate", lambda: self._services["/hybridvla/safety/activate"](True),
                                self._services["/hybridvla/safety/resume"])

    def deactivate(self) -> None:
        """Waits until nothing is commanded any more: setting a scene while the arm still brakes would throw the arm about.

        Raises:
            HybridVLAError: The filter does not come to rest.
        """
        self._services["/hybridvla/safety/activate"](False)
        deadline = time.monotonic() + patience(10.0)
        while self._state != State.INACTIVE:
            if time.monotonic() > deadline:
                raise HybridVLAError("the filter did not become inactive")
            if self._state == State.STOPPED:
                self._services["/hybridvla/safety/resume"]()
            time.sleep(0.05)
        time.sleep(0.1)      # what was sent last has arrived

    def episode(self, seed: int, text: str) -> str:
        """Demonstrates, records and labels one episode.

        Returns:
            The label: `success`, `failure` where the time is over, `discard` where the filter stopped (a busy computer).
        """
        self.call("/sim_rig/reset_scene", seed)
        time.sleep(0.3)
        self.call("/hybridvla/policy/set_instruction", text, False)
        self.call("/hybridvla/episode/start")
        label = "discard"
        try:
            self.activate()
            label = self._watch(text)
        finally:
            self.deactivate()
            said = self._services[f"/hybridvla/episode/{label}"]()
            if not said.success:
                print(said.message, flush=True)     # a broken bag, on a busy computer: the caller counts bags, and goes on
        return label

    def _watch(self, text: str) -> str:
        looks, deadline = 0, time.monotonic() + patience(EPISODE_TIMEOUT_S)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            looks = looks + 1 if self.call("/sim_rig/report", text) else 0
            if looks >= activation.LOOKS:
                return "success"
            if self._state == State.STOPPED:
                return "discard"
        return "failure"


def recorded(bags: Path) -> int:
    """Returns the number of complete bags of successful episodes."""
    sidecars = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(bags.glob("*.json"))]
    return sum(bool(sidecar.get("complete")) and sidecar.get("label") == "success" for sidecar in sidecars)


def run(folder: Path, episodes: int, task: str, variation: str, seed: int) -> None:
    """Records until the wanted number of episodes exists, one scene after the other; the scenes are listed in `folder`.

    Args:
        folder: Folder of the recordings.
        episodes: Number of episodes wanted.
        task: Name of the task.
        variation: Variation of the task's scenes; empty for none.
        seed: Seed of the first scene.

    Raises:
        HybridVLAError: The nodes do not come up, refuse, or several episodes fail.
    """
    import rospy

    from hybridvla_sim import tasks

    found = tasks.load(task, rig="fr3")
    specs = (found.varied(variation) if variation else found).draw(seed, 10 * episodes, False)
    bags = folder / "bags"
    if recorded(bags) < episodes:
        check_scenes(first_scene(folder), len(specs), folder, seed)
    bags.mkdir(parents=True, exist_ok=True)
    config, robot = _configurations(folder, bags)
    with Graph(folder / "logs") as graph:
        graph.launch("sim.launch", "expert:=true", f"task:={task}", f"variation:={variation}", f"seed:={seed}",
                     f"image_hz:={IMAGE_HZ}", f"robot_config:={robot}")
        graph.wait_for_master()
        graph.start(["roslaunch", "-p", str(graph.port), "hybridvla", "record.launch", "teleop:=none",
                     f"config:={config}", f"robot_config:={robot}", f"policy_config:={POLICY}"], "record.log")
        try:
            operator = Operator()
        except rospy.ROSException as error:
            raise HybridVLAError(f"the nodes did not come up ({error}); the end of their log:\n{graph.log_tail()}") from error
        used, failures = first_scene(folder), 0
        while recorded(bags) < episodes:
            check_scenes(used, len(specs), folder, seed)
            spec = specs[used]
            before, began, used = (recorded(bags), sidecars(bags)), time.monotonic(), used + 1
            label = operator.episode(spec.seed, spec.instruction)
            if label != "discard":
                wait_for(bags, before[1] + 1)
            failures += recorded(bags) == before[0]
            row = {"seed": spec.seed, "instruction": spec.instruction, "label": label,
                   "seconds": round(time.monotonic() - began, 1)}
            append_line(folder / SCENES, json.dumps(row))
            print(f"{recorded(bags)}/{episodes} recorded: {spec.instruction}, {label} in {row['seconds']} s", flush=True)
            if failures > MOST_FAILURES:
                raise HybridVLAError(f"{failures} demonstrations failed, or their bags are broken; look at {folder / 'logs'}")


def _configurations(folder: Path, bags: Path) -> Tuple[Path, Path]:
    """Writes configurations of recording and robot for a simulation that may stand still for a moment."""
    recording, robot = dict(read_mapping(RECORDING)), dict(read_mapping(ROBOT))
    recording["folder"] = str(bags.resolve())
    recording["topics"] = [{**topic, "max_gap_s": max(topic["max_gap_s"], LONGEST_SILENCE_S)} if "max_gap_s" in topic else topic
                           for topic in recording["topics"]]
    robot["watchdogs"] = {**robot["watchdogs"], "heartbeat_s": STANDSTILL_S, "joint_state_s": STANDSTILL_S}
    files = []
    for name, values in (("recording", recording), ("robot", robot)):
        path = (folder / f"{name}.yaml").resolve()
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        files.append(path)
    return files[0], files[1]


def first_scene(folder: Path) -> int:
    """Returns the first scene that was not used yet."""
    path = folder / SCENES
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def check_scenes(used: int, count: int, folder: Path, seed: int) -> None:
    """Raises HybridVLAError once every scene was used."""
    if used >= count:
        raise HybridVLAError(f"all {count} scenes from seed {seed} on were used, and {recorded(folder / 'bags')} demonstrations "
                             f"are recorded; go on with another --seed after removing {folder / SCENES}, or ask for fewer "
                             "--episodes")


def sidecars(bags: Path) -> int:
    """Returns how many bags were closed, complete or broken."""
    return len(list(bags.glob("*.json")))


def wait_for(bags: Path, count: int) -> None:
    """Waits until the recorder has closed `count` bags.

    Raises:
        HybridVLAError: The recorder does not close them in time.
    """
    deadline = time.monotonic() + patience(30.0)
    while sidecars(bags) < count or list(bags.glob("*.active")):
        if time.monotonic() > deadline:
            raise HybridVLAError(f"{bags}: the recorder did not close the last bag")
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="field_record", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="output folder; its subfolder bags holds the recordings")
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--task", default="blocks")
    parser.add_argument("--variation", default="colour")
    parser.add_argument("--seed", type=int, default=4001, help="seed of the first scene; later scenes count up from it")
    arguments = parser.parse_args()

    def record() -> int:
        run(arguments.out, arguments.episodes, arguments.task, arguments.variation, arguments.seed)
        print(f"{recorded(arguments.out / 'bags')} bags in {arguments.out / 'bags'}")
        return 0

    return carry_out("field_record", record, "the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
