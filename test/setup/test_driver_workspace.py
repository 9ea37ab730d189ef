"""The devel space and what it is built upon: Noetic, and DRIVER_WORKSPACE, a lab's own workspace with the drivers."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hybridvla_cli import doctor
from hybridvla_core.paths import ROOT

WITH_ENV = str(ROOT / "scripts" / "with_env.sh")
STANDINS = """
ROOT="$1" PLATFORM=debian12
source "$ROOT/scripts/lib/common.sh"
source "$ROOT/scripts/lib/workspace.sh"
find_driver_workspace
standins
"""
#: build_workspace, or another command, of a clone that is not this one.
BUILD = """
ROOT="$1" VENV="$2/.venv" PLATFORM="$3" NOETIC="$1/noetic"
source "$2/scripts/lib/common.sh"
source "$2/scripts/lib/workspace.sh"
set -euo pipefail
"""
CMAKE = """#!/bin/sh
cd "%(root)s" && echo "$*" >>calls
mkdir -p devel && touch devel/setup.bash "devel/from-$(cat CMakeLists.txt)"
test "$(cat CMakeLists.txt)" != broken
"""
PACKAGE = """<package format="2"><name>tiny</name><version>1.0.0</version><description>-</description><license>-</license>
<maintainer email="a@b.invalid">-</maintainer><buildtool_depend>catkin</buildtool_depend></package>"""


@pytest.fixture
def workspace(tmp_path):
    """Make what catkin leaves of a workspace with piper_msgs, as far as it matters here."""
    package, module = tmp_path / "src/piper_msgs", tmp_path / "devel/lib/lab_messages"
    for folder in (package, module):
        folder.mkdir(parents=True)
    (package / "package.xml").write_text("<package format='2'><name>piper_msgs</name><version>1.0.0</version></package>")
    (module / "__init__.py").write_text("")
    (tmp_path / "devel/setup.bash").write_text(
        f'export ROS_PACKAGE_PATH="{tmp_path}/src" PYTHONPATH="{module.parent}:/usr/lib/python3/dist-packages" CHAINED=yes\n')
    return tmp_path / "devel"


def run(command, **environment):
    inherited = {key: value for key, value in os.environ.items() if key not in ("ROS_PACKAGE_PATH", "PYTHONPATH")}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60, check=False,
                          env={**inherited, **environment})


def test_the_drivers_messages_need_no_stand_in(workspace):
    without = run(["bash", "-euc", STANDINS, "bash", str(ROOT)]).stdout.split()
    if "piper_msgs" not in without:
        pytest.skip("this machine has piper_msgs")
    found = run(["bash", "-euc", STANDINS, "bash", str(ROOT)], DRIVER_WORKSPACE=str(workspace))
    assert found.stdout.split() == [name for name in without if name != "piper_msgs"], found.stderr


def test_what_was_sourced_through_a_link_to_this_clone_is_its_own(tmp_path):
    """Its stand-ins are found through the link's path, and still do not count as a driver's messages."""
    (tmp_path / "link").symlink_to(ROOT)
    (tmp_path / "bin").mkdir()
    rospack = tmp_path / "bin/rospack"
    rospack.write_text(f'#!/bin/sh\necho "{tmp_path}/link/test/standin_msgs/$2"\n')
    rospack.chmod(0o755)
    found = run(["bash", "-euc", STANDINS, "bash", str(ROOT)], PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert found.stdout.split() == sorted(path.parent.name for path in (ROOT / "test/standin_msgs").glob("*/package.xml"))
    done = run([str(tmp_path / "link/scripts/with_env.sh"), "sh", "-c", "echo $VIRTUAL_ENV"])
    assert done.stdout == f"{ROOT}/.venv\n", done.stderr


def test_a_command_runs_in_the_drivers_environment_and_ours(workspace):
    code = "import os, hybridvla.msg, lab_messages; print(os.environ['CHAINED'], hybridvla.__file__)"
    done = run([WITH_ENV, sys.executable, "-c", code], DRIVER_WORKSPACE=str(workspace))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"yes {ROOT}")


@pytest.mark.parametrize("command", [[WITH_ENV, "true"], ["bash", "-euc", STANDINS, "bash", str(ROOT)]])
def test_a_workspace_that_is_none_is_named(tmp_path, command):
    done = run(command, DRIVER_WORKSPACE=str(tmp_path))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"DRIVER_WORKSPACE is {tmp_path}, which has no setup.bash" in done.stderr


@pytest.fixture
def clone(tmp_path):
    """Make a clone with a devel space to build by a fake cmake, which fails while CMakeLists.txt says `broken`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "noetic").mkdir()
    (tmp_path / "noetic/setup.bash").touch()
    (tmp_path / "bin/cmake").write_text(CMAKE % {"root": tmp_path})
    (tmp_path / "bin/cmake").chmod(0o755)

    def build(contents="good", platform="debian12"):
        """Return the exit status and what cmake was asked."""
        (tmp_path / "CMakeLists.txt").write_text(contents)
        (tmp_path / "calls").write_text("")
        done = run(["bash", "-c", BUILD + "build_workspace", "bash", str(tmp_path), str(ROOT), platform],
                   PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
        return done.returncode, (tmp_path / "calls").read_text().splitlines()
    build.devel = tmp_path / "devel"
    return build


def test_after_a_failed_build_everything_is_built_again(clone):
    assert clone()[0] == 0 and clone() == (0, [])
    assert clone("broken")[0] == 1
    assert (clone.devel / "from-broken").exists()
    status, calls = clone()
    assert status == 0 and len(calls) == 2 and not (clone.devel / "from-broken").exists()


@pytest.mark.parametrize("platform", ["debian12", "noetic"])
def test_modules_go_where_ros_and_the_drivers_have_theirs_and_a_stamp_is_of_its_platform(clone, platform):
    status, calls = clone(platform=platform)
    assert status == 0 and "-DSETUPTOOLS_DEB_LAYOUT=ON" in calls[0].split() and calls[1].startswith("--build")
    assert clone(platform=platform) == (0, [])
    assert len(clone(platform="another")[1]) == 2


@pytest.mark.long
def test_the_devel_space_provides_the_modules_of_what_it_is_built_upon(tmp_path):
    """With nothing else sourced. The folder below is like Noetic and like any workspace on Ubuntu and Debian."""
    underlay, package = tmp_path / "underlay", tmp_path / "src/tiny"
    (underlay / "lib/python3/dist-packages").mkdir(parents=True)
    (underlay / ".catkin").touch()
    (underlay / "lib/python3/dist-packages/from_below.py").touch()
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "package.xml").write_text(PACKAGE)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.0.2)\nproject(tiny)\n"
        "find_package(catkin REQUIRED)\ncatkin_python_setup()\ncatkin_package()\n")
    (tmp_path / "setup.py").write_text("from setuptools import setup\n"
                                       "setup(name='tiny', version='1.0.0', packages=['tiny'], package_dir={'': 'src'})\n")
    command = 'CMAKE_PREFIX_PATH="$1/underlay" configure_and_build "$1" "$1/build"'
    done = run(["bash", "-c", BUILD + command, "bash", str(tmp_path), str(ROOT), "debian12"])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = f'. {tmp_path}/devel/setup.bash && exec {sys.executable} -c "import tiny, from_below"'
    done = subprocess.run(["bash", "-c", found], env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("places, workspace_set, status, words", [
    ({"franka_msgs": "DEVEL/franka_msgs", "piper_msgs": "/lab/piper_msgs"}, True, doctor.OK,
     "franka_msgs stand-in; piper_msgs from /lab/piper_msgs"),
    ({"franka_msgs": "DEVEL/franka_msgs", "piper_msgs": "DEVEL/piper_msgs"}, False, doctor.OK, "piper_msgs stand-in"),
    ({"franka_msgs": "DEVEL/franka_msgs", "piper_msgs": "DEVEL/piper_msgs"}, True, doctor.WARNING, "stand-in"),
    ({"franka_msgs": "", "piper_msgs": "/lab/piper_msgs"}, True, doctor.WARNING, "franka_msgs missing")])
def test_doctor_says_which_messages_are_used(monkeypatch, places, workspace_set, status, words):
    found = {name: place.replace("DEVEL", str(doctor.ROOT / "devel/lib")) for name, place in places.items()}
    monkeypatch.setattr(doctor, "_python", lambda *_arguments, **_environment: (0, json.dumps(found)))
    if workspace_set:
        monkeypatch.setenv("DRIVER_WORKSPACE", "/lab/devel")
    else:
        monkeypatch.delenv("DRIVER_WORKSPACE", raising=False)
    finding = doctor.check_drivers()
    assert finding.status == status and words in finding.found
