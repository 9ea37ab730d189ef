"""Reports by exit status whether what a container runs is alive: a node that the master knows and that answers, or an address.

usage: healthy.py /NODE.. | http://127.0.0.1:PORT/PATH ..      exits with 0 when all answer, else with 1 and one sentence

It uses the standard library alone and starts no node: a check every ten seconds must not burden a real-time computer.
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
    """Returns what is wrong with a node; empty when it answers at the address that the master has for it."""
    code, said, address = xmlrpc.client.ServerProxy(master).lookupNode("/healthy", name)
    if code != 1:
        return f"{name} is not known to the master at {master}"
    code, said, _ = xmlrpc.client.ServerProxy(address).getPid("/healthy")
    return "" if code == 1 else f"{name} at {address} says: {said}"


def ask_address(url: str) -> str:
    """Returns what is wrong with an address; empty when it answers with 200."""
    with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
        return "" if answer.status == 200 else f"{url} answers {answer.status}"


def main(wanted: List[str]) -> int:
    """Asks each one, and prints the first that does not answer."""
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
