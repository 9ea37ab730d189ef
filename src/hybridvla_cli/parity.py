"""`hybridvla parity`: compares this implementation with recorded outputs of the released one."""
from __future__ import annotations

import argparse
from pathlib import Path

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("parity", help="compare with recorded outputs of the released implementation")
    parser.add_argument("folder", help="folder of fixtures: dims.json, run/, case*.npz, train.npz, with common/ next to it")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of the language model: also compares our own encoding "
                                                       "of the prompts")
    parser.add_argument("--json", help="write the table as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_core.evaluation.parity.run import check_folder

    table = check_folder(Path(args.folder), args.tokenizer)
    print(table.text())
    failed = [row.quantity for row in table.rows.values() if not row.passed]
    print(f"{len(table.rows) - len(failed)} of {len(table.rows)} quantities agree"
          + (f"; past tolerance: {', '.join(failed)}" if failed else "")
          + (f"; {len(table.uncompared)} arrays were not compared" if table.uncompared else ""))
    write_json(args.json, {
        "passed": table.passed, "uncompared": table.uncompared, "bfloat16": table.reports,
        "rows": [{"quantity": row.quantity, "difference": row.difference, "tolerance": row.tolerance,
                  "passed": row.passed} for row in table.rows.values()]})
    return 0 if table.passed else 1
