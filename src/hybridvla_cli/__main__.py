"""Entry point of `hybridvla`: finds the verb, imports only its module, and turns our errors into one sentence.

A verb is a module in this folder with `add_parser(subparsers)`, which adds a parser named after the verb, and
`run(args) -> int`, which returns the exit status. Only the chosen verb is imported, so that `--help` does not wait for
torch.
"""
from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Dict, List, NoReturn, Optional, Sequence

from hybridvla_cli.shared import environment
from hybridvla_cli.shared.failures import sentence
from hybridvla_core import __version__
from hybridvla_core.files import check_target

VERBS: Dict[str, str] = {
    "predict": "predict one action from images, an instruction and a robot state",
    "parity": "compare this implementation with recorded outputs of the released one",
    "convert": "turn a released run or a base model into a checkpoint folder",
    "bench": "time inference, training or the safety filter",
    "train": "train a checkpoint with the hybrid objective",
    "demonstrate": "write a data set of demonstrations in the simulated rig",
    "evaluate": "run episodes in the simulated rig, in process or over ROS",
    "ablate": "make the paper's tables in the simulated rig",
    "dataset": "make, inspect and convert data sets",
    "serve": "serve a checkpoint to clients on other computers",
    "replay": "run a policy and the filter over a recorded bag",
    "watch": "show what the robot does and why, one line per change",
    "doctor": "check this installation and say how to fix what is missing",
}


#: Options that name an output file, in every verb that has them.
TARGETS = ("json", "page", "plot", "report", "rows", "junit")


def available_verbs() -> List[str]:
    """Returns the verbs whose module is part of this installation, in the order of `VERBS`."""
    folder = Path(__file__).resolve().parent
    return [verb for verb in VERBS if (folder / f"{verb}.py").is_file()]


def main(argv: Optional[Sequence[str]] = None, enter: bool = False) -> int:
    """Runs one verb.

    Args:
        argv: Arguments; those of this process when left out.
        enter: Whether to restart in the clone's environment if the verb needs it and nothing was sourced.

    Returns:
        0, the verb's own status, 1 for an error (told in one sentence), 2 for wrong usage, or 130 for Ctrl-C.

    Raises:
        SystemExit: After help or wrong usage, and when a signal ended the verb.
        GeneratorExit: As the verb raised it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    parsed: List[argparse.Namespace] = []
    try:
        return _dispatch(arguments, parsed, enter, debug)
    except KeyboardInterrupt:
        print("hybridvla: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The pipe's reader is gone; the interpreter would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # whatever a library raises, even a Rust panic, reaches the user as one sentence
        if debug:
            raise
        print(f"hybridvla: {sentence(error, parsed[0] if parsed else None)}", file=sys.stderr)
        return 1


def entry() -> NoReturn:
    """Runs the command `hybridvla`: `main`, with the devel space if a verb needs it, and with a clean exit on signals."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:      # keeps what nohup has set
            signal.signal(number, _end)
    sys.unraisablehook = _of_no_half_made_bar
    sys.exit(main(enter=True))


def _end(number: int, _frame: object) -> NoReturn:
    """Ends the verb as Ctrl-C does, so that partial output is cleaned up."""
    sys.exit(128 + number)


def _of_no_half_made_bar(told: sys.UnraisableHookArgs) -> None:
    """Reports an exception from an object's finaliser, unless it is of a progress bar that a signal left half-constructed."""
    if not (isinstance(told.exc_value, AttributeError) and getattr(told.object, "__module__", "").startswith("tqdm")):
        sys.__unraisablehook__(told)


def _dispatch(arguments: List[str], parsed: List[argparse.Namespace], enter: bool, debug: bool) -> int:
    """Runs the verb. parsed: receives the verb's options, for the sentence about an error; the rest as for `main`."""
    verbs = available_verbs()
    if not arguments or arguments[0] not in verbs:
        # Help, version and mistyped verbs: argparse handles them all and exits.
        _top_parser(verbs).parse_args(arguments or ["--help"])
        return 2
    verb = arguments[0]
    module = importlib.import_module(f"hybridvla_cli.{verb}")
    parser = argparse.ArgumentParser(prog="hybridvla")
    module.add_parser(parser.add_subparsers(dest="verb", required=True, metavar="verb"))
    parsed.append(parser.parse_args(arguments))
    for option in TARGETS:      # before hours of work, not after them
        target = getattr(parsed[0], option, None)
        if target and isinstance(target, (str, Path)):
            check_target(target, f"--{option}")
    if enter:
        environment.enter(parsed[0], [*(["--debug"] if debug else []), *arguments])
    environment.check(parsed[0])
    status = module.run(parsed[0])
    return 0 if status is None else int(status)


def _top_parser(verbs: List[str]) -> argparse.ArgumentParser:
    listing = "\n".join(f"  {verb:<12}{VERBS[verb]}" for verb in verbs)
    parser = argparse.ArgumentParser(
        prog="hybridvla",
        usage="hybridvla [-h] [--version] [--debug] verb ...",
        description=f"HybridVLA from the command line.\n\nverbs:\n{listing}",
        epilog="`hybridvla VERB --help` explains a verb; --debug shows the traceback of an error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hybridvla {__version__}")
    parser.add_argument("verb", choices=verbs, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    entry()
