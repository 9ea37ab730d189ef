"""`hybridvla doctor` with planted faults: each is named with its cure; a healthy rig has none."""
from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hybridvla_cli.doctor_parts import computer
from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING
from hybridvla_cli.doctor_parts.fit import check_fit, check_statistics
from hybridvla_cli.doctor_parts.graph import Facts, Stream, judge
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.cameras import CameraSource
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import load_robot

ROBOT = load_robot(ROOT / "config/robots/sim_fr3.yaml")
TWO_VIEWS = (CameraSource("front", "/front/image", width_px=256, height_px=256, serial="0111", serial_parameter="/front/serial"),
             CameraSource("wrist", "/wrist/image", serial="0222", serial_parameter="/wrist/serial"))
CONFIG = replace(load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"), cameras=TWO_VIEWS)
ARM = ROBOT.arms[0]
JOINTS, COMMAND = ARM.topics["joint_states"], ARM.topics["command"]
IMAGE = Stream(30, 3.0, 0.02, width=256, height=256, bytes=200_000)

HEALTHY = Facts(
    master="http://robot:11311", status="inactive; call activate to move",
    publishers={JOINTS: ("/driver",), COMMAND: ("/safety_filter_node",), "/front/image": ("/cameras",),
                "/wrist/image": ("/cameras",),
                "/hybridvla/policy/proposal": ("/policy_node",)},
    subscribers={COMMAND: ("/driver",)},
    streams={JOINTS: Stream(300, 3.0, 0.003, ARM.joint_names), "/front/image": IMAGE, "/wrist/image": IMAGE},
    parameters={"/front/serial": "111", "/wrist/serial": "_0222"})


def with_topic(topic, stream):
    return replace(HEALTHY, streams={**HEALTHY.streams, topic: stream})


def published(topic, *nodes):
    return replace(HEALTHY, publishers={**HEALTHY.publishers, topic: nodes})


def shared(first, its, second, others):
    """Return two nodes on the topic of joint states, each with its own joints."""
    return replace(published(JOINTS, first, second), streams={**HEALTHY.streams, JOINTS: Stream(
        600, 3.0, 0.003, tuple(dict.fromkeys((*its, *others))), sent=((second, tuple(others)), (first, tuple(its))))})


GRAPH_FAULTS = {
    "no master": (replace(HEALTHY, online=False), "no ROS master answers at http://robot:11311", "start a launch file"),
    "leftover sim time": (replace(HEALTHY, simulated=True), "/use_sim_time is true and nobody publishes /clock",
                          "rosparam set /use_sim_time false"),
    "a clock ahead": (with_topic("/front/image", replace(IMAGE, age_s=-0.8)), "0.80 s from the future", "chrony"),
    "a clock behind": (with_topic(JOINTS, Stream(300, 3.0, 7.0, ARM.joint_names)), "7.00 s old when it "
                                                                                   "arrives", "chronyc tracking"),
    "a node out of reach": (replace(HEALTHY, unreachable={"/driver": "robot2:40000"}), "/driver cannot be reached at "
                            "robot2:40000", "set ROS_IP on its computer"),
    "no driver": (published(JOINTS), f"nobody publishes {JOINTS}", "start the robot's driver"),
    "a silent driver": (with_topic(JOINTS, Stream(0, 3.0)), f"nothing comes on {JOINTS} from /driver", "driver again"),
    "wrong arm_id": (with_topic(JOINTS, Stream(300, 3.0, 0.0, tuple(name.replace("fr3", "panda") for name in ARM.joint_names))),
                     "has the joints panda_joint1", "arm_id"),
    "two joint publishers": (shared("/driver", ARM.joint_names, "/joint_state_publisher", ARM.joint_names[:2]),
                             f"/driver, /joint_state_publisher all publish the joints of arm arm on {JOINTS}: two would be mixed",
                             "rosnode kill /joint_state_publisher"),
    "no camera driver": (published("/wrist/image"), "nobody publishes /wrist/image, view wrist", "start the cameras' driver"),
    "two camera drivers": (published("/wrist/image", "/cameras", "/stand_in"),
                           "/cameras, /stand_in all publish /wrist/image, view wrist", "rosnode kill /stand_in"),
    "an unplugged "
    "camera": (with_topic("/wrist/image", Stream(0, 3.0)), "nothing comes on /wrist/image, view wrist", "plug the camera"),
    "a slow camera": (with_topic("/front/image", replace(IMAGE, count=6)), "view front comes 2.0 times a second", "/compressed"),
    "another size": (with_topic("/front/image", replace(IMAGE, width=640, height=480)), "640x480 and 256x256 is configured",
                     "choose the stream"),
    "swapped cameras": (replace(HEALTHY, parameters={"/front/serial": "222", "/wrist/serial": "111"}),
                        "which is view wrist's: the two are exchanged", "correct the serial numbers"),
    "an unknown camera": (replace(HEALTHY, parameters={"/front/serial": "999", "/wrist/serial": "222"}),
                          "999, but 0111 is configured", "correct the serial numbers"),
    "two policies": (published("/hybridvla/policy/proposal", "/policy_node", "/old_policy"),
                     "/policy_node, /old_policy all publish /hybridvla/policy/proposal", "rosnode kill /old_policy"),
    "past the filter": (published(COMMAND, "/safety_filter_node", "/interactive_marker"), "/interactive_marker commands arm arm",
                        "rosnode kill /interactive_marker"),
    "no controller": (replace(HEALTHY, subscribers={}), f"nobody listens to {COMMAND}", "list_controllers"),
}


def test_a_healthy_graph_has_no_fault_and_the_filters_own_words():
    assert [(finding.status, finding.name) for finding in judge(HEALTHY, ROBOT, CONFIG)] == [(OK, "graph"), (OK, "filter")]


@pytest.mark.parametrize("fault", sorted(GRAPH_FAULTS))
def test_a_fault_of_the_graph_is_named_with_its_cure_and_alone(fault):
    facts, said, cure = GRAPH_FAULTS[fault]
    bad = [finding for finding in judge(facts, ROBOT, CONFIG) if finding.status != OK]
    assert any(said in finding.found and cure in finding.advice for finding in bad), bad
    assert len(bad) == (2 if fault == "swapped cameras" else 1), bad


def names(environment, known=(), mine=("192.168.1.5", "127.0.0.1", "127.0.1.1"), host="lab"):
    table = {"localhost": ["127.0.0.1"], "192.168.1.5": ["192.168.1.5"], **dict(known)}
    return computer.check_names(environment, lambda name: table.get(name, []), lambda address: address in mine, host)


ROBOT_URI = {"ROS_MASTER_URI": "http://robot:11311"}
KNOWN = {"robot": ["192.168.1.9"], "lab": ["127.0.1.1"]}.items()
COMPUTER_FAULTS = {
    "wrong ROS_IP": (lambda: names({"ROS_IP": "10.0.0.7"}), "ROS_IP is 10.0.0.7, which is not an address of this "
                                                            "computer", "export ROS_IP"),
    "unresolvable ROS_HOSTNAME": (lambda: names({"ROS_HOSTNAME": "nowhere"}), "nowhere, which has no address", "/etc/hosts"),
    "another computer's "
    "name": (lambda: names({"ROS_HOSTNAME": "robot"}, KNOWN), "192.168.1.9 and not this computer", "/etc/hosts"),
    "unresolvable master": (lambda: names(ROBOT_URI), "the master's computer robot", "/etc/hosts"),
    "no address": (lambda: names({"ROS_MASTER_URI": "robot:11311"}), "not the address of a master", "export ROS_MASTER_URI"),
    "found at loopback": (lambda: names(ROBOT_URI, KNOWN), "tells it to be found at 127.0.1.1", "export ROS_IP"),
    "no name at all": (lambda: names({}, host="unknown"), "calls itself unknown, which has no address", "export ROS_IP"),
    "both set": (lambda: names({"ROS_IP": "192.168.1.5", "ROS_HOSTNAME": "localhost"}), "both set", "unset ROS_HOSTNAME"),
    "a second master": (lambda: computer.check_masters(["11311", "11411"], {}), "2 ROS masters run here", "rosmaster"),
    "missing group": (lambda: computer.check_groups({"video"}, False, {"video", "input"}), "not in input", "usermod -aG input"),
    "no real time": (lambda: computer.check_realtime(0, False), "no real-time priority", "limits.d"),
    "low disk": (lambda: computer.check_space([Path("/")], {Path("/"): 0.4}), "0.4 GB free", "rosclean purge"),
    "busy computer": (lambda: computer.check_load(9.0, 4, 8.0), "9.0 processes want to run on 4 cores", "top"),
    "no memory": (lambda: computer.check_load(0.1, 4, 0.5), "0.5 GB of memory", "top"),
    "unkept clock": (lambda: computer.check_time("no"), "nothing synchronises this computer's clock", "chrony"),
}


def test_the_doctor_and_the_installing_page_give_one_cure_for_the_missing_priority():
    command = computer.check_realtime(0, False).advice.split(", then ")[0]
    assert "rtprio 99" in command and f"\n{command}\n" in (ROOT / "docs/install.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", sorted(COMPUTER_FAULTS))
def test_a_fault_of_the_computer_is_named_with_its_cure(fault):
    check, said, cure = COMPUTER_FAULTS[fault]
    finding = check()
    assert finding.status != OK and said in finding.found and cure in finding.advice, finding


def test_a_healthy_computer_has_no_fault(tmp_path):
    for finding in (names({}, KNOWN), names({"ROS_IP": "192.168.1.5", **ROBOT_URI}, KNOWN), computer.check_masters(["11311"], {}),
                    computer.check_groups({"input", "video"}, False, {"input", "video"}), computer.check_realtime(99, False),
                    computer.check_space([Path("/")], {Path("/"): 80.0}), computer.check_load(1.0, 4, 8.0),
                    computer.check_time("yes"), computer.check_graphics(tmp_path, tmp_path / "none")):
        assert finding.status == OK and finding.advice == "", finding


def test_a_card_without_its_driver_and_a_driver_without_its_devices(tmp_path):
    card = tmp_path / "pci" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030000\n")
    version = tmp_path / "version"
    finding = computer.check_graphics(card.parent, version, tmp_path / "nvidiactl")
    assert "no driver" in finding.found and "apt install nvidia-driver" in finding.advice
    version.write_text("550")
    assert "--gpus all" in computer.check_graphics(card.parent, version, tmp_path / "nvidiactl").advice
    (tmp_path / "nvidiactl").write_text("")
    assert computer.check_graphics(card.parent, version, tmp_path / "nvidiactl").status == OK


def test_masters_are_counted_by_their_processes(tmp_path):
    for number, words in enumerate((["python3", "/usr/bin/rosmaster", "--core", "-p", "11411", "-w", "3"], ["bash"],
                                    ["/usr/bin/rosmaster", "--core"])):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes("\0".join(words).encode())
    assert computer.running_masters(tmp_path) == ["11411", "11311"]


TINY = ROOT / "checkpoints/tiny"


def test_a_checkpoint_of_other_cameras_or_numbers_does_not_fit():
    own = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    assert check_fit(TINY, own, ROBOT).status == OK
    assert "trained with the cameras ['front']" in check_fit(TINY, CONFIG, ROBOT).found
    other = replace(own, convention=replace(own.convention, gripper_sense="one_is_closed"))
    assert "gripper_sense 'one_is_open'" in check_fit(TINY, other, ROBOT).found


def test_a_checkpoint_whose_chunk_the_robot_refuses_does_not_fit(monkeypatch):
    read = read_checkpoint(TINY)
    long = replace(read, config=replace(read.config, model=replace(read.config.model, chunk=ROBOT.proposals.max_chunk + 1)))
    monkeypatch.setattr("hybridvla_cli.doctor_parts.fit.read_checkpoint", lambda folder: long)
    found = check_fit(TINY, load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"), ROBOT)
    assert found.status == FAILURE and "steps at once, but robot sim_fr3 accepts at most" in found.found


def test_data_from_elsewhere_are_named_by_axis():
    assert check_statistics(TINY, ROBOT).status == OK
    arm = replace(ARM, workspace=replace(ARM.workspace, lower_m=(-0.9, -0.3, 0.02), upper_m=(-0.4, 0.3, 0.7)))
    finding = check_statistics(TINY, replace(ROBOT, arms=(arm,)))
    assert "arm arm: x in the data" in finding.found and "workspace -0.90 to -0.40 m" in finding.found


def test_an_altered_checkpoint_is_named(tmp_path):
    from hybridvla_cli import doctor

    folder = tmp_path / "altered"
    shutil.copytree(str(TINY), str(folder))
    statistics = folder / "dataset_statistics.json"
    statistics.write_text(statistics.read_text().replace("0", "1", 1))
    finding = doctor.check_checkpoint(folder)
    assert finding.status == doctor.FAILURE and "dataset_statistics.json" in finding.found
    assert "restore the folder" in finding.advice


@pytest.fixture
def without_torch(monkeypatch):
    """Simulate a robot computer: no torch, and no imported module that needed it."""
    for name in ("hybridvla_cli.doctor_parts.fit", "hybridvla_core.checkpoints.format"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)


def test_without_torch_a_checkpoints_files_are_looked_at_and_its_fit_is_left_to_the_policys_computer(without_torch, tmp_path):
    from hybridvla_cli import doctor
    from hybridvla_cli.doctor_parts.robot import _fit

    whole = doctor.check_checkpoint(TINY)
    assert whole.status == OK and "intact" in whole.found and "not read: torch is not installed" in whole.found
    folder = tmp_path / "altered"
    shutil.copytree(str(TINY), str(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    altered = doctor.check_checkpoint(folder)
    assert altered.status == FAILURE and "model.safetensors" in altered.found
    assert doctor.check_checkpoint(tmp_path / "none").status == FAILURE
    fit, = _fit(TINY, load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"), ROBOT)
    assert fit.status == WARNING and "torch" in fit.found and "computer that runs the policy" in fit.advice


@pytest.mark.skipif(sys.version_info[:2] == (3, 8), reason="--without-ros is for Debian 12")
@pytest.mark.parametrize("installed, devel, left_out", [
    (("base", "torch", "vision"), False, True), (("base", "vision", "sim"), False, False), (("base",), True, False),
    ((), False, False)])
def test_on_a_computer_that_was_set_up_without_ros_its_absence_is_no_fault(monkeypatch, tmp_path, installed, devel, left_out):
    from hybridvla_cli import doctor
    from hybridvla_cli.doctor_parts import stamps

    folder = tmp_path / "venv/.stamps/debian12"
    folder.mkdir(parents=True)
    for name in installed:
        (folder / name).touch()
    if devel:
        (tmp_path / "devel").mkdir()
    for module in (doctor, stamps):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    for check, otherwise in ((doctor.check_ros, FAILURE), (doctor.check_devel_space, FAILURE), (doctor.check_drivers, WARNING)):
        finding = check()
        assert finding.status == (OK if left_out else otherwise), finding
        assert ("set up without ROS" in finding.found) == left_out


def test_without_a_master_the_whole_command_says_so_and_judges_the_rest(tmp_path, monkeypatch, capsys):
    from hybridvla_cli import doctor
    from hybridvla_cli.__main__ import main

    monkeypatch.setenv("ROS_MASTER_URI", "http://127.0.0.1:1")
    for name in ("check_python", "check_packages", "check_imports", "check_ros", "check_devel_space", "check_drivers",
                 "check_gpu",
                 "check_rendering"):
        monkeypatch.setattr(doctor, name, lambda name=name: doctor.Finding(name, OK, "fine"))
    out = tmp_path / "out.json"
    robot = str(ROOT / "config/robots/sim_fr3.yaml")
    assert main(["doctor", "--robot", robot, "--checkpoint", str(TINY), "--json", str(out)]) == 0
    found = {check["name"]: check for check in json.loads(out.read_text())["checks"]}
    assert "no ROS master answers at http://127.0.0.1:1" in found["graph"]["found"]
    assert found["fit"]["status"] == found["statistics"]["status"] == OK
    assert "-> start a launch file" in capsys.readouterr().out


def test_the_faults_of_a_first_day_are_all_planted_here():
    """There are at least 25 faults; the tests above find each of them named with its cure."""
    planted = {**GRAPH_FAULTS, **COMPUTER_FAULTS}
    assert len(planted) >= 25
    assert planted.keys() >= {
        "wrong ROS_IP", "unresolvable ROS_HOSTNAME", "unresolvable master", "a second master", "swapped cameras", "missing group",
        "a clock ahead", "a clock behind", "leftover sim time", "low disk", "wrong arm_id", "busy computer", "no real time"}
