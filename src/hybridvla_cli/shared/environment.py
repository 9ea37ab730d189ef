"""This clone's environment with ROS: which verbs need it, and how a command that was started without it enters it."""
from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import Callable, Dict, Sequence, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT

#: Verbs that need ROS and our own messages, which are in the devel space: the words for it, and whether the options ask for it.
NEEDED: Dict[str, Tuple[str, Callable[[argparse.Namespace], bool]]] = {
    "dataset": ("dataset from-bags", lambda args: args.action == "from-bags"),
    "replay": ("replay", lambda args: True),
    "watch": ("watch", lambda args: True),
    "evaluate": ("evaluate --ros", lambda args: bool(args.ros)),
    "ablate": ("ablate rigs", lambda args: args.table in ("rigs", "all") and not args.report),
}
#: Set in a process that has been restarted already.
ENTERED = "HYBRIDVLA_ENTERED"


def enter(args: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Restarts the command in the clone's environment if its verb needs ROS, nothing was sourced, and the environment exists.

    Args:
        args: The verb's parsed options.
        arguments: The command line's arguments.
    """
    runner = ROOT / "scripts" / "with_env.sh"
    if (_lacks_messages(args) and runner.is_file() and (ROOT / "devel" / "setup.bash").is_file()
            and ENTERED not in os.environ):
        os.execve(str(runner), [str(runner), sys.executable, "-m", "hybridvla_cli", *arguments], {**os.environ, ENTERED: "1"})


def check(args: argparse.Namespace) -> None:
    """Raises HybridVLAError if the verb needs ROS and our messages are missing. `ablate all` can do most of its work without."""
    if _lacks_messages(args) and getattr(args, "table", "") != "all":
        require_messages(NEEDED[args.verb][0])


def require_messages(what: str) -> None:
    """Raises HybridVLAError, which says that `what` needs them, if our messages cannot be imported."""
    if not _messages():
        raise HybridVLAError(f"{what} needs ROS and this project's messages, which are not built here or not sourced; run "
                             "`make setup`, or source the setup.bash of the workspace that has them")


def _lacks_messages(args: argparse.Namespace) -> bool:
    return args.verb in NEEDED and NEEDED[args.verb][1](args) and not _messages()


def _messages() -> bool:
    return importlib.util.find_spec("hybridvla") is not None
