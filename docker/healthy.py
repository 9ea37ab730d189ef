"""Says by its exit status whether what a container runs is alive: a node that the master knows and that answers, or an address.

usage: healthy.py /NODE.. | http://127.0.0.1:PORT/PATH ..      0 when all answer; else 1, and one sentence

The standard library alone, and no node of its own: a check every ten seconds must not cost a real-time computer anything.
"""
from __future__ import annotations

import http.client
import os
import socket
import sys
import urllib.error
import urllib.request
import xmlrpc.client
from typing import List

ANSWER_S = 3.0


def ask_node(name: str, master: str) -> str:
    """What is wrong with a node; empty when it answers by the address that the master has of it."""
    code, said, address = xmlrpc.client.ServerProxy(master).lookupNode("/healthy", name)
    if code != 1:
        return f"{name} is not known to the master at {master}"
    code, said, _ = xmlrpc.client.ServerProxy(address).getPid("/healthy")
    return "" if code == 1 else f"{name} at {address} says: {said}"


def ask_address(url: str) -> str:
    """What is wrong with an address; empty when it answers with 200."""
    with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
        return "" if answer.status == 200 else f"{url} answers {answer.status}"


def main(wanted: List[str]) -> int:
    """Ask for each, and print the first that does not answer."""
    socket.setdefaulttimeout(ANSWER_S)
    master = os.environ.get("ROS_MASTER_URI") or "http://localhost:11311"
    for name in wanted:
        try:
            wrong = ask_node(name, master) if name.startswith("/") else ask_address(name)
        except (OSError, urllib.error.URLError, http.client.HTTPException, xmlrpc.client.Error) as error:
            wrong = f"{name} does not answer: {error}"
        if wrong:
            print(wrong)
            return 1
    return 0 if wanted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
