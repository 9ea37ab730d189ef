"""The operator's page over HTTP and WebSocket, as a browser and as another site would use it."""
from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import threading
import time

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.console.operator.app import FREE, GUARDED
from hybridvla_ros.console.operator.desk import SLOW, TRIGGERS
from hybridvla_ros.console.operator.node import PageServer
from hybridvla_ros.messages.services import ANSWER_S, SERVICE_S
from hybridvla_ros.runtime.patience import patience

TOKEN = "t" * 20
#: A stand-in for the browser around page.js: `press` clicks a button, `answered` ends its request, `sent` are the requests.
#: `live` holds what hears the WebSocket, and `ticks` what is called at intervals.
BROWSER = """
const sent = [], ends = {}, buttons = {}, elements = {}, live = {}, ticks = [];
const press = (name) => buttons[name](), answered = async (name) => { ends[name](); await new Promise(setImmediate); };
const element = (name) => (elements[name] = elements[name] || {
  addEventListener: (_, call) => { buttons[name] = call; }, replaceChildren: () => 0, dataset: {}, children: [] });
const location = { hash: "", host: "here" }, sessionStorage = { getItem: () => "" }, addEventListener = () => 0;
const shown = () => NAMES.map((name) => ({ ...element(name), dataset: { do: name } }));
const document = { getElementById: element, querySelectorAll: shown };
const setInterval = (call) => ticks.push(call);
const WebSocket = function () { this.addEventListener = (event, call) => { live[event] = call; }; };
const fetch = (path) => new Promise((end) => {
  const name = path.slice(4);
  sent.push(name);
  ends[name] = () => end({ json: async () => ({ done: true, message: "well" }) });
});
"""


class StandInDesk:
    def __init__(self):
        self.done, self.hangs = [], {}

    def snapshot(self):
        return {"safety": {"state": "STOPPED" if ("stop", "") in self.done else "ACTIVE"}, "views": ["front"]}

    def picture(self, view):
        return b"jpeg" if view == "front" else None

    def act(self, name, text=""):
        self.done.append((name, text))
        if name in self.hangs:
            assert self.hangs[name].wait(30)
        return True, f"{name} done"


class Page:
    def __init__(self):
        self.desk = StandInDesk()
        self.server = PageServer(self.desk, 0, TOKEN)
        self.address = f"127.0.0.1:{self.server.port}"
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 10
        while self.ask("GET", "/", missing_ok=True) is None:
            assert time.monotonic() < deadline

    def ask(self, method, path, body=None, missing_ok=False, **headers):
        connection = http.client.HTTPConnection(self.address, timeout=5)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        except ConnectionRefusedError:
            if missing_ok:
                return None
            raise
        finally:
            connection.close()


@pytest.fixture
def page():
    page = Page()
    yield page
    page.server.stop()
    page.thread.join(5)
    assert not page.thread.is_alive()


def test_the_page_its_files_and_its_pictures_come_with_headers_that_shut_others_out(page):
    for path, words in (("/", b"STOP"), ("/page.js", b"stop-button"), ("/page.css", b"#stop-button"), ("/view/front", b"jpeg")):
        status, body, headers = page.ask("GET", path)
        assert status == 200 and words in body, path
        assert "frame-ancestors 'none'" in headers["content-security-policy"] and headers["x-frame-options"] == "DENY"
    for path in ("/view/none", "/app.py", "/..%2fapp.py", "/%2e%2e/app.py"):
        assert page.ask("GET", path)[0] == 404, path


def test_stop_needs_no_token_and_everything_that_moves_does(page):
    assert page.ask("POST", "/do/stop")[0] == 200 and page.desk.done == [("stop", "")]
    for name in GUARDED:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
            assert page.ask("POST", f"/do/{name}", b'{"text": "go"}', **headers)[0] == 403, name
    assert page.desk.done == [("stop", "")]
    for name in GUARDED:
        assert page.ask("POST", f"/do/{name}", b'{"text": "go"}', Authorization=f"Bearer {TOKEN}")[0] == 200, name
    assert page.desk.done[1:] == [(name, "go" if name == "instruction" else "") for name in GUARDED]
    assert page.ask("POST", "/do/explode", Authorization=f"Bearer {TOKEN}")[0] == 404
    assert page.ask("GET", "/do/activate", Authorization=f"Bearer {TOKEN}")[0] == 405


def test_every_button_has_a_service(page):
    assert set(FREE + GUARDED) == set(TRIGGERS) | {"activate", "deactivate", "instruction"}
    shown = re.findall(rb'data-do="(\w+)"', page.ask("GET", "/")[1])
    assert {name.decode() for name in shown} == set(GUARDED) - {"instruction"}      # the instruction is a form


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": ""},
                                     {"Host": "[::1"}, {"Origin": "http://[x"}, {"Origin": "http://evil.example"},
                                     {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}])
def test_other_names_and_other_sites_are_refused(page, headers):
    for method, path in (("GET", "/"), ("GET", "/view/front"), ("POST", "/do/stop"), ("POST", "/do/activate")):
        assert page.ask(method, path, Authorization=f"Bearer {TOKEN}", **headers)[0] in (400, 403), path
    assert page.desk.done == []
    if headers.get("Origin"):
        with pytest.raises(WebSocketException):
            connect(f"ws://{page.address}/live", origin=headers["Origin"])


def test_its_own_page_is_let_in(page):
    own = {"Origin": f"http://{page.address}", "Host": page.address}
    assert page.ask("POST", "/do/stop", **own)[0] == 200
    local = f"localhost:{page.server.port}"
    assert page.ask("POST", "/do/stop", Origin=f"http://{local}", Host=local)[0] == 200


@pytest.mark.parametrize("body, said", [(b"no json", "not JSON"), (b'["a"]', "must be"), (b'{"text": 5}', "must be"),
                                        (b" " * 9000, "too long"), (b"[" * 8000, "not JSON"),
                                        (b'{"text": "\\ud800"}', "an invalid character")])
def test_an_instruction_that_is_none_is_refused_in_words(page, body, said):
    status, answer, _ = page.ask("POST", "/do/instruction", body, Authorization=f"Bearer {TOKEN}")
    assert status == 400 and said in json.loads(answer)["message"] and page.desk.done == []


def test_what_changes_is_seen_live_and_a_stop_within_half_a_second(page):
    with connect(f"ws://{page.address}/live", origin=f"http://{page.address}") as live:
        assert json.loads(live.recv(timeout=5))["safety"]["state"] == "ACTIVE"
        pressed = time.monotonic()
        page.ask("POST", "/do/stop")
        while json.loads(live.recv(timeout=5))["safety"]["state"] != "STOPPED":
            pass
        assert time.monotonic() - pressed < patience(0.5)


def test_a_stop_is_tried_though_every_other_call_hangs(page):
    page.desk.hangs["resume"] = threading.Event()
    calls = [threading.Thread(target=lambda: page.ask("POST", "/do/resume", Authorization=f"Bearer {TOKEN}"), daemon=True)
             for _ in range(60)]
    for call in calls:
        call.start()
    deadline = time.monotonic() + 20
    while page.desk.done.count(("resume", "")) < 40:        # as many as the server has threads
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert page.ask("POST", "/do/stop")[0] == 200 and ("stop", "") in page.desk.done
    page.desk.hangs["resume"].set()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_named(port):
    with pytest.raises(HybridVLAError, match="from 0 "):
        PageServer(StandInDesk(), port, TOKEN)


def test_a_taken_port_is_named(page):
    with pytest.raises(HybridVLAError, match="is another page running"):
        PageServer(StandInDesk(), page.server.port, TOKEN)


def test_the_page_waits_longer_for_each_answer_than_the_node_that_asks_for_it(page):
    script = page.ask("GET", "/page.js")[1].decode()
    table, others = re.search(r"PATIENCE = \{(.*?)\}, OTHERS = (\d+)", script).groups()
    waits = {name: int(ms) for name, ms in re.findall(r"(\w+): (\d+)", table)}
    for name in FREE + GUARDED:
        assert waits.get(name, int(others)) > 1e3 * (SLOW.get(name, ANSWER_S) + SERVICE_S), name


def played(page, acts):
    """Return what `acts` print in the page's script."""
    script = f"const NAMES = {json.dumps(GUARDED)};{BROWSER}{page.ask('GET', '/page.js')[1].decode()}{acts}"
    done = subprocess.run(["node", "-"], input=script, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed here")
def test_buttons_that_wait_leave_connections_of_the_browser_free_for_the_stop(page):
    acts = """
    (async () => {
      for (const name of ["episode_success", "episode_success", "episode_start", "go_to_start", "reenter"]) { press(name); }
      press("stop-button");
      await answered("episode_success");
      press("reenter");
      console.log(JSON.stringify(sent));
      process.exit();
    })();
    """
    assert played(page, acts) == ["episode_success", "episode_start", "go_to_start", "stop", "reenter"]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed here")
def test_a_page_that_hears_nothing_says_that_it_is_dead(page):
    word = json.dumps({"safety": {"silent": True}, "policy": {"silent": True}, "proposal": {}, "episode": {}, "interventions": [],
                       "views": []})
    acts = f"""
    let now = 1e15;
    Date.now = () => now;
    const hidden = () => {{ ticks.forEach((call) => call()); return elements.lost.hidden; }}, seen = [hidden()];
    live.message({{ data: '{word}' }});
    seen.push(hidden());
    now += 1000;
    seen.push(hidden());
    console.log(JSON.stringify(seen));
    """
    assert played(page, acts) == [False, True, False], "before the first word, just after it, and a second later"
