"""Entry point of `hybridvla`: finds the verb, imports only its module, and turns our errors into one sentence.

A verb is a module in this folder with `add_parser(subparsers)`, which adds a parser named
as the verb, and `run(args) -> int`, which returns the exit status. Nothing but the chosen verb is imported, so that
`--help` does not wait for torch.
"""
from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from hybridvla_core import __version__
from hybridvla_core.errors import HybridVLAError

VERBS: Dict[str, str] = {
    "predict": "one action from an image, an instruction and a state",
    "parity": "compare this implementation with recorded outputs of the released one",
    "convert": "turn a released .pt checkpoint into a checkpoint folder",
    "bench": "time inference, stage by stage, or the safety filter",
    "train": "train a checkpoint with the hybrid objective",
    "evaluate": "run episodes in the simulated rig, without ROS",
    "ablate": "train and evaluate with one ingredient left out at a time",
    "dataset": "make, inspect and convert data sets",
    "replay": "run a policy and the filter over a recorded bag",
    "doctor": "check this installation and say what to do about what is missing",
}


def available_verbs() -> List[str]:
    """The verbs whose module is part of this installation, in the order of `VERBS`."""
    folder = Path(__file__).resolve().parent
    return [verb for verb in VERBS if (folder / f"{verb}.py").is_file()]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one verb. Returns 0, the verb's own status, 1 for an explained error, 2 for wrong usage, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print("hybridvla: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has left; the interpreter would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (HybridVLAError, OSError, ModuleNotFoundError) as error:
        if debug:
            raise
        print(f"hybridvla: {_sentence(error)}", file=sys.stderr)
        return 1


def _dispatch(arguments: List[str]) -> int:
    verbs = available_verbs()
    if not arguments or arguments[0] not in verbs:
        # Help, version and mistyped verbs: argparse answers all of them and exits.
        _top_parser(verbs).parse_args(arguments or ["--help"])
        return 2
    verb = arguments[0]
    module = importlib.import_module(f"hybridvla_cli.{verb}")
    parser = argparse.ArgumentParser(prog="hybridvla")
    module.add_parser(parser.add_subparsers(dest="verb", required=True, metavar="verb"))
    status = module.run(parser.parse_args(arguments))
    return 0 if status is None else int(status)


def _top_parser(verbs: List[str]) -> argparse.ArgumentParser:
    listing = "\n".join(f"  {verb:<10}{VERBS[verb]}" for verb in verbs)
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


def _sentence(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is not installed here; run `make setup`, or `hybridvla doctor`"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; check the path and its permissions"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
