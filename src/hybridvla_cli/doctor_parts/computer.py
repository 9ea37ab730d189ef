"""Checks of the computer itself: ROS's names and addresses, groups, real-time priority, disk, load, clock, graphics driver.

Each check takes what it looks at as arguments, which default to this computer's own values.
"""
from __future__ import annotations

import grp
import os
import resource
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence, Set
from urllib.parse import urlsplit

from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING, Finding

LEAST_DISK_GB, LITTLE_DISK_GB, LEAST_MEMORY_GB = 1.0, 10.0, 2.0
#: Number of processes waiting per core above which 200 ticks a second are late.
BUSY = 1.5
NVIDIA = "0x10de"
LOOPBACK = ("127.", "::1")
Resolve = Callable[[str], List[str]]


def resolve(name: str) -> List[str]:
    """Returns the addresses of a name; empty if there are none."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def has_address(address: str) -> bool:
    """Tells whether an address is this computer's own: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def check_names(environment: Optional[Mapping[str, str]] = None, resolves: Resolve = resolve,
                mine: Callable[[str], bool] = has_address, host: str = "") -> Finding:
    """Checks that ROS finds this computer and the master by name in both directions; else topics are listed but stay silent."""
    env = os.environ if environment is None else environment
    uri = env.get("ROS_MASTER_URI") or "http://localhost:11311"
    ip, name, host = env.get("ROS_IP", ""), env.get("ROS_HOSTNAME", ""), host or socket.gethostname()
    try:
        parts = urlsplit(uri)
        master, port = parts.hostname or "", parts.port
    except ValueError:
        master, port = "", None
    if not uri.startswith("http://") or not master or port is None:
        return Finding("ros names", FAILURE, f"ROS_MASTER_URI is {uri!r}, which is not the address of a master",
                       "export ROS_MASTER_URI=http://ROBOT_COMPUTER:11311")
    if not resolves(master):
        return Finding("ros names", FAILURE, f"the master's computer {master} (ROS_MASTER_URI) has no address: nothing starts",
                       f"add a line with its address and {master} to /etc/hosts")
    elsewhere = not any(mine(address) for address in resolves(master))
    if ip and not mine(ip):
        return Finding("ros names", FAILURE, f"ROS_IP is {ip}, which is not an address of this computer: other computers "
                                             "cannot reach its nodes",
                       "export ROS_IP=ADDRESS, one that `ip -4 addr` lists")
    if name and not resolves(name):
        return Finding("ros names", FAILURE, f"ROS_HOSTNAME is {name}, which has no address: other computers cannot reach this "
                                             "computer's nodes",
                       f"add a line with this computer's address and {name} to /etc/hosts on both computers, or use ROS_IP")
    if name and not any(mine(address) for address in resolves(name)):
        return Finding("ros names", FAILURE, f"ROS_HOSTNAME is {name}, which is {', '.join(resolves(name))} and not this "
                                             "computer",
                       f"correct the line of {name} in /etc/hosts")
    shown = ip or (resolves(name or host) or [""])[0]
    if not ip and not name and not shown:
        return Finding("ros names", FAILURE, f"this computer calls itself {host}, which has no address, and neither ROS_IP nor "
                       "ROS_HOSTNAME is set", "export ROS_IP=ADDRESS, one that `ip -4 addr` lists")
    if elsewhere and shown.startswith(LOOPBACK):
        return Finding("ros names", FAILURE, f"the master runs on {master}, but this computer tells it to be found at "
                       f"{shown}: its topics are listed there, but no messages arrive",
                       "export ROS_IP=ADDRESS, the one on the robot's network")
    if ip and name:
        return Finding("ros names", WARNING, f"ROS_IP ({ip}) and ROS_HOSTNAME ({name}) are both set; ROS_HOSTNAME wins",
                       "unset ROS_HOSTNAME")
    return Finding("ros names", OK, f"master at {uri}, this computer at {name or shown}")


def check_masters(masters: Optional[Sequence[str]] = None, environment: Optional[Mapping[str, str]] = None) -> Finding:
    """Checks for more than one master on this computer: nodes of one do not see the other's."""
    env = os.environ if environment is None else environment
    found = running_masters() if masters is None else list(masters)
    if len(found) > 1:
        return Finding("masters", WARNING, f"{len(found)} ROS masters run here, at ports {', '.join(found)}: nodes of one do "
                                           "not see "
                       f"the other's, and ROS_MASTER_URI is {env.get('ROS_MASTER_URI', 'not set')}",
                       "stop the one that is not wanted: `ps -ef | grep rosmaster`")
    return Finding("masters", OK, f"{'one at port ' + found[0] if found else 'none'} on this computer")


def running_masters(processes: Path = Path("/proc")) -> List[str]:
    """Returns the ports of the visible rosmaster processes."""
    found = []
    for entry in sorted(processes.glob("[0-9]*/cmdline")):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(Path(word).name == "rosmaster" for word in words[:3]):
            found.append(words[words.index("-p") + 1] if "-p" in words[:-1] else "11311")
    return found


def check_groups(groups: Optional[Set[str]] = None, root: Optional[bool] = None, exists: Optional[Set[str]] = None) -> Finding:
    """Checks the groups that give a user access to pedals, cameras and CAN adapters."""
    if root if root is not None else os.geteuid() == 0:
        return Finding("groups", OK, "root may open every device")
    mine = {entry.gr_name for entry in grp.getgrall() if entry.gr_gid in os.getgroups()} if groups is None else groups
    there = {entry.gr_name for entry in grp.getgrall()} if exists is None else exists
    missing = [name for name in ("input", "video", "dialout") if name in there and name not in mine]
    if missing:
        return Finding("groups", WARNING, f"you are not in {', '.join(missing)}: pedals and gamepads (input), cameras (video) or "
                       "serial devices (dialout) cannot be "
                       "opened", f"sudo usermod -aG {','.join(missing)} $USER, then log in again")
    return Finding("groups", OK, "input, video and dialout as far as they exist")


def check_realtime(limit: Optional[int] = None, root: Optional[bool] = None) -> Finding:
    """Checks whether the filter may ask for SCHED_FIFO."""
    allowed = resource.getrlimit(resource.RLIMIT_RTPRIO)[0] if limit is None else limit
    if allowed == 0 and not (root if root is not None else os.geteuid() == 0):
        return Finding("real time", WARNING, "no real-time priority is allowed: the filter runs, but its ticks come later on "
                                             "a busy computer",
                       'echo "$USER - rtprio 99" | sudo tee /etc/security/limits.d/hybridvla.conf, then log in again')
    return Finding("real time", OK, "the filter may ask for SCHED_FIFO")


def check_space(folders: Sequence[Path] = (), free: Optional[Mapping[Path, float]] = None) -> Finding:
    """Checks the room for bags and logs. free: folder -> GB."""
    places = folders or [folder for folder in (Path.home(), Path("/tmp")) if folder.is_dir()]
    least = min((free[place] if free is not None else shutil.disk_usage(str(place)).free / 1e9, str(place)) for place in places)
    if least[0] < LITTLE_DISK_GB:
        status = FAILURE if least[0] < LEAST_DISK_GB else WARNING
        return Finding("disk", status, f"{least[0]:.1f} GB free at {least[1]}: when it is full, recordings end and logs are lost",
                       "free some space: `du -sh ~/.ros/log ~/hybridvla_recordings`, then `rosclean purge`")
    return Finding("disk", OK, f"{least[0]:.0f} GB free at {least[1]}")


def check_load(load: Optional[float] = None, cores: Optional[int] = None, free_gb: Optional[float] = None) -> Finding:
    """Checks what else this computer does. load: processes that want to run, averaged over the last minute."""
    now, count = os.getloadavg()[0] if load is None else load, cores or len(os.sched_getaffinity(0))
    memory = _memory_gb() if free_gb is None else free_gb
    if now > BUSY * count:
        return Finding("load", WARNING, f"{now:.1f} processes want to run on {count} cores: ticks and images come late",
                       "stop what is not needed: `top -o %CPU`")
    if memory < LEAST_MEMORY_GB:
        return Finding("load", WARNING, f"{memory:.1f} GB of memory left: the computer will swap or kill a node",
                       "stop what is not needed: `top -o %MEM`")
    return Finding("load", OK, f"{now:.1f} processes want to run on {count} cores, {memory:.0f} GB of memory left")


def _memory_gb() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) / 1e6
    return float("inf")


def check_time(synchronised: Optional[str] = None) -> Finding:
    """Checks that something keeps this computer's clock right. synchronised: output of timedatectl; empty if it has none."""
    said = _timedatectl() if synchronised is None else synchronised
    if said == "no":
        return Finding("clock", WARNING, "nothing synchronises this computer's clock: two computers' stamps drift apart, and "
                                         "images and joint states no longer match",
                       "sudo apt install chrony, on both computers, one as the other's server")
    return Finding("clock", OK, "kept right" if said == "yes" else "timedatectl does not answer here")


def _timedatectl() -> str:
    try:
        done = subprocess.run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, encoding="utf-8", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def check_graphics(devices: Path = Path("/sys/bus/pci/devices"), driver: Path = Path("/proc/driver/nvidia/version"),
                   nodes: Path = Path("/dev/nvidiactl")) -> Finding:
    """Checks for a graphics card without a driver, which torch does not see."""
    cards = [place for place in sorted(devices.glob("*/vendor")) if place.read_text(encoding="ascii").strip() == NVIDIA
             and (place.parent / "class").read_text(encoding="ascii").startswith("0x03")]
    if cards and not driver.is_file():
        return Finding("graphics", WARNING, f"this computer has an NVIDIA card ({cards[0].parent.name}) but no driver: the "
                                            "policy runs on the CPU", "sudo apt install nvidia-driver, then restart")
    if driver.is_file() and not nodes.exists():
        return Finding("graphics", WARNING, "the NVIDIA driver is loaded, but its devices are missing, as in a container "
                                            "without GPU",
                       "start the container with --gpus all, or run `nvidia-modprobe -u -c=0`")
    return Finding("graphics", OK, "driver loaded" if driver.is_file() else "no NVIDIA card")


CHECKS = (check_names, check_masters, check_groups, check_realtime, check_space, check_load, check_time, check_graphics)
