"""make setup: where it cannot finish, it refuses with one clear sentence before it changes anything."""
from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from hybridvla_core.paths import ROOT

DEBIAN = 'ID=debian\nVERSION_ID="12"\n'


@pytest.fixture
def clone(tmp_path):
    """Make a clone with only the set-up, on a machine with fake tools: apt-get records that it was called."""
    shutil.copytree(str(ROOT / "scripts"), str(tmp_path / "clone" / "scripts"))
    shutil.copytree(str(ROOT / "requirements"), str(tmp_path / "clone" / "requirements"))
    (tmp_path / "bin").mkdir()
    for name, body in {"id": "echo 1000", "sudo": "exit 1", "dpkg-query": "true",
                       "apt-get": f"touch {tmp_path}/apt-was-called"}.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    return tmp_path


def run_setup(clone, os_release=DEBIAN, arguments=(), through="clone", **environment):
    (clone / "os-release").write_text(os_release)
    before = sorted(path.name for path in (clone / "clone").iterdir())
    inherited = {key: value for key, value in os.environ.items() if key != "ROS_DISTRO"}
    done = subprocess.run(
        ["bash", str(clone / through / "scripts/setup.sh"), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8", check=False,
        env={**inherited, "PATH": f"{clone}/bin:/usr/bin:/bin", "OS_RELEASE": str(clone / "os-release"),
             "NOETIC_PREFIX": str(clone / "noetic"), **environment})
    assert not (clone / "apt-was-called").exists()
    assert sorted(path.name for path in (clone / "clone").iterdir()) == before
    return done


def test_without_root_names_the_missing_packages(clone):
    done = run_setup(clone)
    assert done.returncode == 1
    assert "will install" in done.stdout
    assert "needs root" in done.stderr and "nothing was changed" in done.stderr
    assert "python3-rospy" in done.stderr and "libdiagnostic-msgs-dev" in done.stderr


def test_names_only_what_is_missing(clone):
    (clone / "bin" / "dpkg-query").write_text(
        "#!/bin/sh\necho 'installed catkin'\necho 'installed cmake'\necho 'config-files python3-rospy'\n")
    wanted = run_setup(clone).stderr.split()
    assert "catkin" not in wanted and "cmake" not in wanted
    assert "python3-rospy" in wanted, "removed but not purged is not installed"


@pytest.mark.parametrize("os_release, words", [
    ("ID=fedora\nVERSION_ID=41\n", ["fedora 41", "Debian 12", "debian12/apt.txt"]),
    ('ID=debian\nVERSION_ID="13"\n', ["debian 13"]),
    ('ID=ubuntu\nVERSION_ID="20.04"\n', ["Ubuntu 20.04 without ROS", "ros-noetic-ros-base"]),
])
def test_another_distribution_is_named(clone, os_release, words):
    done = run_setup(clone, os_release)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_noetic_that_is_not_there(clone):
    done = run_setup(clone, ROS_DISTRO="noetic")
    assert done.returncode == 1
    assert "NOETIC_PREFIX" in done.stderr


def test_noetic_on_another_python_is_refused(clone):
    """The rig's locks are for Python 3.8: with another system Python, Noetic is refused instead of half-installed."""
    (clone / "noetic").mkdir()
    (clone / "noetic" / "setup.bash").write_text("")
    version = subprocess.run(["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                             stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.strip()
    if version == "3.8":
        pytest.skip("this system's Python is the one Noetic wants")
    packages = (ROOT / "requirements" / "noetic" / "apt.txt").read_text().split("\n")
    (clone / "bin" / "dpkg-query").write_text(
        "#!/bin/sh\n" + "\n".join(f"echo 'installed {name}'" for name in packages if name and name[0] != "#"))
    done = run_setup(clone)
    assert done.returncode == 1
    assert f"Python {version}" in done.stderr and "3.8 on Noetic" in done.stderr


@pytest.mark.parametrize("options, with_pip, arguments, why", [
    ([], True, [], "made without the system's packages"), (["--system-site-packages"], False, [], ""),
    ([], True, ["--without-ros"], ""), ([], False, ["--without-ros"], "is unfinished")])
def test_an_environment_that_lacks_the_systems_packages_or_was_interrupted_is_made_anew(clone, options, with_pip, arguments, why):
    venv = clone / "clone/.venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", *options, str(venv)], check=True)
    if with_pip:        # the real one takes seconds to install
        (next(venv.glob("lib/python3*/site-packages")) / "pip.py").write_text("print('pip 25.0.1')\n")
    said = run_setup(clone, arguments=arguments).stdout
    assert ("will make .venv" in said) == bool(why) and why in said


def test_a_clone_that_is_reached_through_a_link_is_called_by_its_own_path(clone):
    (clone / "link").symlink_to(clone / "clone")
    assert f"clone in {(clone / 'clone').resolve()}\n" in run_setup(clone, through="link").stdout


@pytest.mark.parametrize("name", ["my clone", "my\tclone"])
@pytest.mark.parametrize("arguments", [[], ["--without-ros"]])
def test_a_clone_whose_path_contains_white_space_is_refused(clone, name, arguments):
    """Its `hybridvla` would have a first line that no kernel understands."""
    (clone / "clone").rename(clone / name)
    (clone / "clone").symlink_to(clone / name)      # a link to it does not help
    done = run_setup(clone, arguments=arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and f"'{clone / name}', contains white space" in done.stderr
    assert "Move the clone" in done.stderr and "nothing was changed" in done.stderr
    assert run_setup(clone, arguments=["--help"]).returncode == 0


def test_unknown_option(clone):
    done = run_setup(clone, arguments=["--fast"])
    assert done.returncode == 1
    assert "--fast" in done.stderr and "--help" in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["--until", "tomorrow"], "packages or python"), (["--until"], "packages or python"),
    (["--without-ros", "--without-policy"], "leave nothing to install")])
def test_options_that_make_no_sense_are_refused(clone, arguments, words):
    done = run_setup(clone, arguments=arguments)
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_computer_that_only_serves_a_model_needs_no_ros(clone):
    done = run_setup(clone, arguments=["--without-ros", "--until", "packages"])
    assert done.returncode == 1 and "python3-venv" in done.stderr and "ros" not in done.stderr.split("run:")[1]
    assert "debian12/torch" in done.stdout and "debian12/sim" not in done.stdout
    rig = run_setup(clone, arguments=["--without-policy"])
    assert "debian12/sim" in rig.stdout and "torch" not in rig.stdout
