"""The operator's page on a real graph: its buttons act, and what happens is shown there and in `hybridvla watch`."""
from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.patience import patience

CHROMIUM = Path("/usr/bin/chromium")


class PageUser:
    """A user who has the printed address."""

    def __init__(self, rig):
        log = f"page_{time.monotonic_ns()}.log"
        self.process = rig.graph.start([sys.executable, "-u", str(ROOT / "nodes/operator_page_node"), "_port:=0",
                                        "_policy_config:=config/policies/tiny.yaml"], log)
        found = []

        def printed():
            found[:] = re.findall(r"http://(127\.0\.0\.1:\d+)/#(\S+)", rig.graph.log_tail(log, 50))
            return found
        rig.until(printed, "the page's address", 30)
        self.address, self.token = found[0]
        self.url = f"http://{self.address}/#{self.token}"

    def press(self, name, text=None, token=True):
        connection = http.client.HTTPConnection(self.address, timeout=20)
        connection.request("POST", f"/do/{name}", json.dumps({"text": text}) if text else None,
                           {"Authorization": f"Bearer {self.token}"} if token else {})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        return answer.status, told

    def view(self):
        connection = http.client.HTTPConnection(self.address, timeout=5)
        connection.request("GET", "/view/front")
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return data if answer.status == 200 else b""


@pytest.fixture
def user(rig):
    user = PageUser(rig)
    yield user
    rig.graph.end(user.process)


def test_an_instruction_by_the_page_moves_the_arm_and_its_stop_stops_it(rig, user):
    words = "left as the page says"       # unlike those of other tests: the last one is in the first line of watch
    watching = subprocess.Popen([sys.executable, "-m", "hybridvla_cli", "watch"], cwd=str(ROOT / "src"), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, encoding="utf-8", env={**os.environ, "HYBRIDVLA_ENTERED": "1"})
    try:
        assert watching.stdout.readline()       # it listens
        assert user.press("instruction", "left", token=False)[0] == 403
        assert user.press("instruction", "nowhere")[1]["done"]
        rig.until(lambda: user.press("activate")[1]["done"], "activation by the page", 40)
        before = rig.position()
        assert user.press("instruction", words)[1]["done"]
        rig.until(lambda: rig.position()[1] > before[1] + 0.01, "motion to the left")
        rig.until(lambda: user.view()[:2] == b"\xff\xd8", "a picture")
        with connect(f"ws://{user.address}/live") as live:
            assert json.loads(live.recv(timeout=5))["safety"]["state"] in ("ACTIVE", "HOLDING")
            pressed = time.monotonic()
            status, told = user.press("stop", token=False)
            assert status == 200 and told["done"]
            while json.loads(live.recv(timeout=5))["safety"]["state"] != "STOPPED":
                pass
            assert time.monotonic() - pressed < patience(0.5)
        assert user.press("resume", token=False)[0] == 403 and user.press("resume")[1]["done"]
    finally:
        watching.terminate()
        said = watching.communicate(timeout=10)[0]
    for line in ("robot        ACTIVE", f"instruction  {words}", "robot        STOPPED: stopped by the operator"):
        assert line in said, said


@pytest.mark.long
@pytest.mark.skipif(not CHROMIUM.is_file(), reason="chromium is not installed here")
def test_the_page_in_a_browser(rig, user):
    """In a headless browser, the arm moves, a press on STOP shows STOPPED, and a dead page says that it is dead."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(user.url, wait_until="domcontentloaded")
        picture = page.locator("#views img")
        rig.until(lambda: picture.evaluate("image => image.naturalWidth") > 0, "a picture")
        page.fill("#text", "nowhere")
        page.click("#instruct button")
        api.expect(page.locator("#instruction")).to_have_text("nowhere")
        rig.until(lambda: user.press("activate")[1]["done"], "activation", 40)
        before = rig.position()
        page.fill("#text", "left")
        page.click("#instruct button")
        rig.until(lambda: rig.position()[1] > before[1] + 0.01, "motion to the left")
        pressed = time.monotonic()
        page.click("#stop-button")
        rig.until(lambda: page.locator("#state").inner_text().startswith("STOPPED"), "STOPPED on the page")
        assert time.monotonic() - pressed < patience(0.5)
        assert user.token not in page.url and page.locator("#lost").is_hidden()
        rig.graph.end(user.process)
        api.expect(page.locator("#lost")).to_be_visible()
        browser.close()
