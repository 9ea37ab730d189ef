"""Makes the pictures of docs/tour.md in docs/images: an episode of the shipped checkpoint, the operator's page on a live graph.

    scripts/with_env.sh python scripts/tour.py                 # all
    scripts/with_env.sh python scripts/tour.py episode page    # some: episode, page, demo, rviz

`page` needs chromium and playwright, `rviz` needs rviz and Xvfb, `demo` needs the page that `make demo` wrote. What cannot be
made is reported, and its picture stays as it was.
"""
from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
from PIL import Image

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.patience import patience
from hybridvla_ros.runtime.private_graph import Graph

IMAGES = ROOT / "docs/images"
CHROMIUM = Path("/usr/bin/chromium")
#: Seed of the scene, which the training never saw, and the instruction.
SEED, INSTRUCTION = 3_000_001, "put the red block on the green pad"
WINDOW = {"width": 1000, "height": 720}


def keep(name: str, picture: Image.Image) -> None:
    """Saves a small picture: 96 colours are enough for pages and blocks."""
    path = IMAGES / name
    picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(str(path), optimize=True)
    print(f"{path.relative_to(ROOT)}: {picture.width}x{picture.height}, {path.stat().st_size // 1000} kB")


def episode() -> None:
    """Makes pictures of four moments of one episode: the shipped checkpoint, through the safety filter, in process."""
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_core.policy.predictor import Policy
    from hybridvla_sim import tasks
    from hybridvla_sim.suite import Suite
    from hybridvla_sim.task import EpisodeSpec

    config, robot = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "ensemble")
    suite = Suite(Policy.from_checkpoint(str(ROOT / "checkpoints/tiny"), mode="ensemble"), config, robot, tasks.load("blocks"))
    frames: List[np.ndarray] = []
    render = suite.rig.render

    def watched(*arguments: Any, **options: Any) -> np.ndarray:
        frames.append(render(*arguments, **options))
        return frames[-1]
    suite.rig.render = watched
    found = suite.run(EpisodeSpec(seed=SEED, instruction=INSTRUCTION))
    frames.append(render("front"))
    suite.rig.close()
    chosen = [frames[round(share * (len(frames) - 1))] for share in (0.0, 0.35, 0.7, 1.0)]
    gap = np.full((chosen[0].shape[0], 4, 3), 255, np.uint8)
    keep("tour_episode.png", Image.fromarray(np.concatenate([part for frame in chosen for part in (frame, gap)][:-1], axis=1)))
    print(f"episode: {'done' if found['success'] else 'NOT done'} after {found['keyframes']} predictions and {found['time']} s; "
          f"{found['violations']} broken limits")


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    """Waits for a condition; raises HybridVLAError if it does not come true."""
    print(f"waiting for {what}", flush=True)
    end = time.monotonic() + patience(seconds)
    while not condition():
        if time.monotonic() > end:
            raise HybridVLAError(f"{what} did not come within {patience(seconds):.0f} s")
        time.sleep(0.1)


def page() -> None:
    """Makes pictures of the operator's page before, while and after the arm moves, in a browser on a live graph."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.is_file():
        raise HybridVLAError("chromium is not installed: apt install chromium")
    with tempfile.TemporaryDirectory() as folder, Graph(Path(folder)) as graph, sync_playwright() as play:
        graph.launch("sim.launch", "page:=true", f"seed:={SEED}")
        found: List[str] = []
        address = re.compile(r"http://127\.0\.0\.1:\d+/#\S+")
        until(lambda: found.extend(address.findall(graph.log_tail(lines=200))) or found, "the page", 90)
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        view = browser.new_page(viewport=WINDOW)
        view.goto(found[0], wait_until="domcontentloaded")

        def state(word: str) -> bool:
            return view.locator("#state").inner_text().startswith(word)

        def shot(name: str) -> None:
            file = Path(folder) / "shot.png"
            view.screenshot(path=str(file))
            keep(name, Image.open(str(file)))
        until(lambda: view.locator("#views img").first.evaluate("image => image.naturalWidth") > 0, "a picture")
        policy = view.locator("#policy")
        until(lambda: policy.inner_text().startswith(("WAITING", "INFERRING")), "a policy that is warm", 120)
        shot("tour_waiting.png")
        view.fill("#text", INSTRUCTION)
        view.click("#instruct button")

        def active() -> bool:
            if not state("INACTIVE"):
                return True
            view.click("[data-do=activate]")
            time.sleep(1.0)
            return not state("INACTIVE")
        until(active, "activation")
        until(lambda: state("ACTIVE"), "motion")
        time.sleep(2.0)
        shot("tour_moving.png")
        view.click("#stop-button")
        until(lambda: state("STOPPED"), "STOPPED")
        shot("tour_stopped.png")
        browser.close()


def demo() -> None:
    """Makes a picture of the beginning of the page that `make demo` writes."""
    made = ROOT / "out/demo/index.html"
    if not made.is_file():
        raise HybridVLAError("out/demo/index.html is not there: make demo")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([str(CHROMIUM), "--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={folder}/shot.png",
                        f"--window-size={WINDOW['width']},{WINDOW['height']}", made.as_uri()], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
        keep("tour_demo.png", Image.open(f"{folder}/shot.png"))


def rviz() -> None:
    """Makes a picture of what the filter judges, in RViz on a virtual screen; the arm is at its start."""
    sys.path.insert(0, str(ROOT / "test/support"))
    import screen

    from hybridvla_ros.console.view.scene import MEASURED

    if screen.missing("rviz", "Xvfb"):
        raise HybridVLAError(f"{', '.join(screen.missing('rviz', 'Xvfb'))} not installed: apt install rviz xvfb")
    with tempfile.TemporaryDirectory() as folder, Graph(Path(folder) / "graph") as graph:
        graph.launch("sim.launch", "policy:=false")
        graph.wait_for_master(60.0)
        markers = [sys.executable, str(ROOT / "nodes/markers_node"), "_robot_config:=config/robots/sim_fr3.yaml"]
        graph.start(markers, "markers.log")
        with screen.screen(Path(folder)) as (environment, file):
            command = ["rviz", "--display-config", str(ROOT / "config/rviz/fr3.rviz"), "--fullscreen"]
            with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as window:
                try:
                    until(lambda: screen.share_of(screen.picture(file), MEASURED) > 0.002, "the arm in RViz's picture", 120)
                    time.sleep(patience(3.0))
                    keep("tour_rviz.png", Image.fromarray(screen.picture(file).copy()))
                finally:
                    window.kill()


PARTS: Dict[str, Callable[[], None]] = {"episode": episode, "page": page, "demo": demo, "rviz": rviz}


def main(names: List[str]) -> int:
    """Makes the requested pictures; returns 1 if something could not be made."""
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        print(f"tour: no part {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or list(PARTS):
        try:
            PARTS[name]()
        except (HybridVLAError, ImportError, OSError, subprocess.SubprocessError) as error:
            print(f"tour: {name} was left out: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
