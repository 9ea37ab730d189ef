"""Counts parameters and results of src that are `Any`. Each should be where the data really are untyped.

`Optional[Any]` and sequences of nothing but Any count as well. JSON objects (`Dict[str, Any]`) do not: they say what they are.

usage: untyped.py [--list]      --list names each place
"""
from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Iterator, List, Optional

# This number may only decrease.
MOST = 11


def annotations(tree: ast.AST) -> Iterator[Optional[ast.expr]]:
    """Yields the annotations of all parameters and results."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = node.args
            for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
                yield argument.annotation if argument else None
            yield node.returns


def untyped(annotation: Optional[ast.expr]) -> bool:
    """Tells whether an annotation is Any, or a wrapper of nothing but Any."""
    if isinstance(annotation, ast.Subscript):
        held = annotation.slice
        if type(held).__name__ == "Index":  # Python 3.8
            held = held.value  # type: ignore[attr-defined]
        parts = held.elts if isinstance(held, ast.Tuple) else [held]
        return all(untyped(part) or isinstance(part, ast.Constant) for part in parts) and any(untyped(part) for part in parts)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def main(arguments: List[str]) -> int:
    """Prints the count, and each place if asked or if there are too many; returns 1 if there are too many."""
    places = [f"{path}:{annotation.lineno}" for path in sorted(Path("src").rglob("*.py"))
              for annotation in annotations(ast.parse(path.read_text(encoding="utf-8"), str(path)))
              if annotation is not None and untyped(annotation)]
    if "--list" in arguments or len(places) > MOST:
        print("\n".join(places))
    print(f"{len(places)} parameters and results are Any; at most {MOST} may be")
    return 1 if len(places) > MOST else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
