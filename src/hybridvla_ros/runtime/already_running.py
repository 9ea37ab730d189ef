"""Checks whether a node or service that the master knows still runs. ROS ends the older of two nodes of one name, so when in
doubt the newcomer refuses: an unreachable computer may still run something."""
from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlparse

import rosgraph

from hybridvla_core.errors import HybridVLAError

ASKS = "/hybridvla_start"      # name under which the master is asked
PATIENCE_S = 1.0


def own_name(name: str) -> str:
    """Returns the name under which this process will be known: `name`, or what `__name:=` says, in its namespace."""
    given = rosgraph.names.load_mappings(sys.argv).get("__name", name)
    return rosgraph.names.ns_join(rosgraph.names.get_ros_namespace(), given)


def refuse_taken_name(name: str) -> None:
    """Raises HybridVLAError when a node of this name runs, or may run: taking the name would end it."""
    try:
        uri = rosgraph.Master(ASKS).lookupNode(name)
    except (rosgraph.MasterException, OSError):
        return              # nobody has the name, or there is no master yet: init_node waits for one
    refuse_if_running(f"node {name}", uri)


def asked_name(name: str) -> str:
    """Returns the name that the command line's remapping gives to a graph name; the master knows only that one."""
    found: str = rosgraph.names.load_mappings(sys.argv).get(name, name)
    return found


def refuse_if_running(what: str, uri: str) -> None:
    """Raises HybridVLAError unless nothing listens at `uri` any more, as after a crash. what: begins the sentence."""
    doubt = reached(uri)
    if doubt == "gone":
        return
    if doubt:
        raise HybridVLAError(f"{what} is registered at {uri}, which cannot be reached from here ({doubt}); if it still runs, "
                             "starting this one would end it: stop it, or make its computer's name known here (/etc/hosts, "
                             "ROS_IP); if it no longer runs, call `rosnode cleanup` and start again")
    raise HybridVLAError(f"{what} is running already ({uri}); stop it before starting this one")


def reached(uri: str) -> str:
    """Tells whether something listens at an address.

    Args:
        uri: Address with host and port.

    Returns:
        An empty string when something does; "gone" when its computer says that nothing does; otherwise the reason why that cannot
        be known from here.
    """
    address = urlparse(uri)
    try:
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE_S):
            return ""
    except socket.gaierror:
        return f"the name {address.hostname} cannot be resolved"
    except ConnectionRefusedError:
        return "gone" if _surely(address.hostname or "") else "the name leads to this computer, which need not be its own"
    except socket.timeout:
        return "no answer in time"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)


def _surely(host: str) -> bool:
    """Tells whether a refused connection comes from the intended computer.

    A name that leads to a loopback address is right only if it is this computer's: /etc/hosts may hold another computer's.

    Args:
        host: Name or address.

    Returns:
        Whether it does; False also where the name leads nowhere.
    """
    try:
        found = socket.gethostbyname(host)
    except OSError:
        return False
    own = {"localhost", socket.gethostname(), socket.gethostname().split(".")[0], os.environ.get("ROS_HOSTNAME", "")}
    return not found.startswith("127.") or host.replace(".", "").isdigit() or host in own or host.split(".")[0] in own
