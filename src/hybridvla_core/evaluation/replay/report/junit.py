"""The checks as JUnit XML, for machines that gate on tests."""
from __future__ import annotations

import re
from typing import Sequence
from xml.etree import ElementTree

from hybridvla_core.evaluation.replay.verdict import FAIL, SKIPPED, Check

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def document(checks: Sequence[Check], unread: Sequence[str], checkpoint: str) -> str:
    """Returns one test case per check. unread: bags left out, each of which is also among the checks."""
    failures = sum(check.outcome == FAIL for check in checks)
    skipped = sum(check.outcome == SKIPPED for check in checks)
    suite = ElementTree.Element("testsuite", name=f"hybridvla replay {_clean(checkpoint)}", tests=str(len(checks)),
                                failures=str(failures), skipped=str(skipped), errors="0")
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=f"replay.{check.group}", name=_clean(check.name))
        if check.outcome == FAIL:
            ElementTree.SubElement(case, "failure", message=_clean(check.text)).text = _clean(check.text)
        elif check.outcome == SKIPPED:
            ElementTree.SubElement(case, "skipped", message=_clean(check.text))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _NO_XML.sub("?", text)
