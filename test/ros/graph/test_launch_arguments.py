"""What a launch file passes on, read by roslaunch itself, without a master."""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as ElementTree

import pytest
import rospy
import yaml

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.console.deadman_node import JoyButton
from hybridvla_ros.console.operator.node import PageServer
from hybridvla_ros.runtime import node_support
from hybridvla_ros.runtime.private_graph import free_port

#: Arguments without a robot: the stand-in's files replace the driver's.
STAND_IN = ("rig:=stand_in",)
CONTROL = """<launch>
  <arg name="robot_ip"/> <arg name="robot"/> <arg name="arm_id"/> <arg name="load_gripper"/>
  <param name="/seen/load_gripper" value="$(arg load_gripper)"/>
</launch>"""
RIGS = {"fr3.launch": STAND_IN, "agilex.launch": STAND_IN, "sim.launch": ()}


def read(launch, *arguments, packages=None):
    """Let roslaunch read a launch file. packages: a folder of further ROS packages, first on the path."""
    path = ":".join(part for part in (packages and str(packages), os.environ.get("ROS_PACKAGE_PATH")) if part)
    return subprocess.run(["roslaunch", "--dump-params", str(ROOT / "launch" / launch), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", timeout=60, check=False,
                          env={**os.environ, "ROS_PACKAGE_PATH": path})


def parameters(launch, *arguments, packages=None):
    """Return what roslaunch would set on the parameter server."""
    done = read(launch, *arguments, packages=packages)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def scale_in_use(monkeypatch, given):
    """Return the filter's speed scale from its parameters, as safety_node.main reads it, and the file's."""
    monkeypatch.setattr(rospy, "get_param",
                        lambda name, default: given.get(name.replace("~", "/safety_filter_node/"), default))
    config = load_file(RobotConfig, ROOT / given["/safety_filter_node/robot_config"])
    return node_support.number_parameter("speed_scale", config.speed_scale), config.speed_scale


@pytest.mark.long
@pytest.mark.parametrize("launch, configured", [("fr3.launch", 0.5), ("agilex.launch", 0.5), ("sim.launch", 1.0)])
def test_without_an_argument_the_robot_configuration_sets_the_speed(monkeypatch, launch, configured):
    given = parameters(launch, *RIGS[launch])
    assert scale_in_use(monkeypatch, given) == (configured, configured)
    given = parameters(launch, *RIGS[launch], "speed_scale:=0.25")
    assert scale_in_use(monkeypatch, given) == (0.25, configured)


def test_another_value_in_the_file_is_the_one_in_use(monkeypatch, tmp_path):
    text = (ROOT / "config/robots/fr3.yaml").read_text()
    (tmp_path / "slow.yaml").write_text(text.replace("speed_scale: 0.5", "speed_scale: 0.2"))
    given = parameters("fr3.launch", *STAND_IN, f"robot_config:={tmp_path}/slow.yaml")
    assert scale_in_use(monkeypatch, given) == (0.2, 0.2)


@pytest.mark.parametrize("launch, arguments, dry", [
    ("fr3.launch", (), True), ("fr3.launch", ("armed:=true",), False), ("fr3.launch", ("armed:=true", "dry_run:=true"), True),
    ("fr3.launch", STAND_IN, False), ("agilex.launch", (), True), ("agilex.launch", ("policy:=false",), True),
    ("agilex.launch", ("armed:=true",), False), ("agilex.launch", STAND_IN, False), ("sim.launch", (), False),
    *((launch, (f"armed:={word}",), True) for launch, word in (
        ("fr3.launch", "no"), ("fr3.launch", "off"), ("agilex.launch", "no"), ("agilex.launch", "None"), ("agilex.launch", "1"))),
    ("fr3.launch", ("armed:=True",), False),
    ("safety.launch", ("robot_config:=config/robots/fr3.yaml",), True),
    ("safety.launch", ("robot_config:=config/robots/fr3.yaml", "dry_run:=false"), False)])
def test_a_real_robot_is_commanded_only_when_armed(tmp_path, launch, arguments, dry):
    for package, files in (("franka_control", {"launch/franka_control.launch": CONTROL}),
                           ("franka_example_controllers", {"config/franka_example_controllers.yaml": "{}"})):
        for name, text in files.items():
            file = tmp_path / package / name
            file.parent.mkdir(parents=True)
            file.write_text(text)
        (tmp_path / package / "package.xml").write_text(f"<package><name>{package}</name></package>")
    given = parameters(launch, *arguments, *(("robot_ip:=172.16.0.2",) if launch == "fr3.launch" else ()), packages=tmp_path)
    assert given["/safety_filter_node/dry_run"] is dry


@pytest.mark.parametrize("launch, argument, says", [
    ("fr3.launch", "rig:=Real", "rig is Real; use real or stand_in"),
    ("agilex.launch", "rig:=agilex", "rig is agilex; use real or stand_in"),
    ("agilex.launch", "rig:=standin", "rig is standin; use real or stand_in"),
    ("agilex.launch", "command:=Joint", "command is Joint; use joint or pos_cmd"),
    ("agilex.launch", "policy:=yes", "policy is yes; use true, false or scripted"),
    ("sim.launch", "policy:=no", "policy is no; use true or false"),
    ("agilex.launch", "expert:=true", "expert is true, but a real rig has none"),
    ("agilex.launch", "policy:=scripted", "policy is scripted, which asks the stand-in where its tray is"),
    ("fr3.launch", "armed:=true", "robot_ip is empty; give robot_ip:=ADDRESS of the Control, or robot:=false"),
    ("deadman.launch", "source:=Pedal", "source is Pedal; use spacemouse, gamepad, pedal or none"),
    ("record.launch", "teleop:=SpaceMouse", "teleop is SpaceMouse; use spacemouse, keyboard, puppet or none"),
    ("record.launch", "spacenav:=no", "spacenav is no; use true or false")])
def test_a_word_that_means_nothing_is_refused_by_name(launch, argument, says):
    done = read(launch, argument)
    assert says in done.stderr and not yaml.safe_load(done.stdout), done.stdout + done.stderr


def test_a_launch_that_is_refused_ends_before_a_node_begins(private):
    environment, port = private
    words = ("rig:=Real", "robot:=false", "policy:=false")
    done = subprocess.run(["roslaunch", "-p", port, str(ROOT / "launch/fr3.launch"), *words], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 1 and "rig is Real; use real or stand_in" in done.stdout and "started" not in done.stdout


@pytest.fixture
def private(tmp_path):
    """Return the environment of a separate graph, and its port."""
    port = free_port()
    return {**os.environ, "ROS_MASTER_URI": f"http://127.0.0.1:{port}", "ROS_IP": "127.0.0.1", "ROS_HOME": str(tmp_path),
            "ROS_LOG_DIR": str(tmp_path / "log")}, str(port)


@pytest.mark.long
def test_the_running_filter_has_the_speed_of_its_file(private, tmp_path):
    environment, port = private
    text = (ROOT / "config/robots/sim_fr3.yaml").read_text()
    (tmp_path / "slow.yaml").write_text(text.replace("speed_scale: 1.0", "speed_scale: 0.2"))
    with open(str(tmp_path / "launch.log"), "w") as log:
        process = subprocess.Popen(["roslaunch", "-p", port, str(ROOT / "launch/safety.launch"),
                                    f"robot_config:={tmp_path}/slow.yaml"], stdout=log, stderr=log, env=environment)
    try:
        said, deadline = "", time.monotonic() + 60.0
        while not said and time.monotonic() < deadline:      # the master starts first
            said = subprocess.run(["rostopic", "echo", "-n", "1", "/hybridvla/safety/status/speed_scale"], env=environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", timeout=60,
                                  check=False).stdout
        assert said and abs(float(said.split()[0]) - 0.2) < 1e-6, (tmp_path / "launch.log").read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.mark.long
@pytest.mark.parametrize("launch", ["fr3.launch", "agilex.launch"])
def test_device_and_button_of_the_deadman_reach_its_node(launch):
    given = parameters(launch, *STAND_IN, "deadman:=pedal", "deadman_device:=/dev/input/by-id/pedal", "deadman_button:=48")
    assert given["/deadman_node/source"] == "pedal" and given["/deadman_node/button"] == 48
    assert given["/deadman_node/device"] == "/dev/input/by-id/pedal"
    given = parameters(launch, *STAND_IN, "deadman:=gamepad", "deadman_device:=/dev/input/js1")
    assert given["/joy/dev"] == "/dev/input/js1" and given["/deadman_node/button"] == -1
    assert given["/deadman_node/renew_s"] == 30      # a wireless pad may go out of reach; a cable needs no renewal
    assert parameters(launch, *STAND_IN, "deadman:=gamepad", "deadman_renew_s:=0")["/deadman_node/renew_s"] == 0


@pytest.mark.parametrize("launch", sorted(RIGS))
def test_the_port_of_the_page_reaches_its_node(launch):
    given = parameters(launch, *RIGS[launch], "page:=true", "page_port:=8766")
    assert given["/operator_page_node/port"] == 8766
    given = parameters(launch, *RIGS[launch], "page:=true")
    assert given["/operator_page_node/port"] == parameters("page.launch")["/operator_page_node/port"] == 8765


def advised(sentence):
    """Return the launch arguments that a sentence tells the reader to give."""
    return set(re.findall(r"(\w+):=", sentence))


def arguments_of(launch):
    return {arg.get("name") for arg in ElementTree.parse(str(ROOT / "launch" / launch)).getroot().findall("arg")}


@pytest.mark.parametrize("port", ["taken", 65536])
def test_a_page_that_finds_no_port_names_an_argument_of_every_launch_that_starts_it(port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(HybridVLAError) as refused:
            PageServer(None, other.getsockname()[1] if port == "taken" else port, "token")
    for launch in (*RIGS, "page.launch"):
        assert advised(str(refused.value)) & arguments_of(launch), f"{launch}: {refused.value}"


def test_a_dead_man_switch_without_its_device_names_an_argument_of_every_launch_that_starts_it():
    switch = JoyButton(0, "/dev/input/none", 0.0)
    assert not switch.held
    for launch in ("fr3.launch", "agilex.launch", "deadman.launch", "record.launch"):
        assert advised(switch.problem) & arguments_of(launch), f"{launch}: {switch.problem}"


@pytest.mark.long
def test_a_pedal_without_a_device_says_so_and_a_deadman_that_ended_comes_back(private, tmp_path):
    environment, port = private
    log = tmp_path / "launch.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(["roslaunch", "-p", port, str(ROOT / "launch/deadman.launch"), "source:=pedal"],
                                   env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 90
        while log.read_text(errors="replace").count("name the pedal's file under /dev/input/by-id") < 2:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.mark.long
def test_the_drivers_gripper_can_be_left_out(tmp_path):
    """fr3_real.launch needs the driver's packages; a stand-in for them shows what reaches franka_control.launch."""
    for package, files in {"franka_control": {"launch/franka_control.launch": CONTROL},
                           "franka_example_controllers": {"config/franka_example_controllers.yaml": "{}"}}.items():
        for name, text in {**files, "package.xml": f"<package format='2'><name>{package}</name></package>"}.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    real = ("robot_ip:=172.16.0.2", "policy:=false")
    assert parameters("fr3.launch", *real, packages=tmp_path)["/seen/load_gripper"] is True
    assert parameters("fr3.launch", *real, "load_gripper:=false", packages=tmp_path)["/seen/load_gripper"] is False
    assert parameters("fr3.launch", *STAND_IN, "load_gripper:=false")


@pytest.mark.long
def test_the_real_fr3_has_a_policy_of_its_own():
    key = "/policy_node/policy_config"
    assert parameters("fr3.launch", "robot:=false")[key] == "config/policies/fr3.yaml"
    assert parameters("fr3.launch", *STAND_IN)[key] == "config/policies/tiny.yaml"
    assert parameters("fr3.launch", "robot:=false", "policy_config:=mine.yaml")[key] == "mine.yaml"


def test_the_simulated_dual_arm_rig_has_a_policy_an_expert_and_scenes_of_its_own():
    given = parameters("agilex.launch", *STAND_IN, "expert:=true", "task:=hold_and_wipe", "variation:=light")
    assert given["/policy_node/policy_config"] == "config/policies/dual.yaml" and "/policy_node/checkpoint" not in given
    assert (given["/piper_rig/task"], given["/piper_rig/variation"]) == ("hold_and_wipe", "light")
    config = load_file(PolicyConfig, ROOT / given["/policy_node/policy_config"])
    assert (config.device, config.dtype) == ("cpu", "float32")
    real = parameters("agilex.launch")
    assert real["/policy_node/policy_config"] == "config/policies/agilex.yaml" and "/piper_rig" not in str(real)
    done = read("agilex.launch", *STAND_IN, "policy:=scripted", "task:=hold_and_wipe")
    assert "knows the tray alone; use expert:=true for hold_and_wipe" in done.stderr
