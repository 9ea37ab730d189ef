"""RViz itself, on a screen without a monitor: it loads our layouts, and the arm can be seen in its picture."""
from __future__ import annotations

import subprocess
import sys

import pytest
import screen

from hybridvla_core.paths import ROOT
from hybridvla_ros.console.view.scene import MEASURED

MISSING = screen.missing("rviz", "Xvfb")
pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(MISSING), reason=(
    f"{' and '.join(MISSING)} not installed, which make setup leaves out (50 packages): apt install rviz xvfb, then make rviz"))]


@pytest.fixture
def markers(rig):
    process = rig.graph.start([sys.executable, str(ROOT / "nodes/markers_node"), "_robot_config:=config/robots/sim_fr3.yaml"],
                              "markers.log")
    yield rig
    rig.graph.end(process)


@pytest.mark.parametrize("layout", ["fr3", "agilex"])
def test_the_arm_is_seen_in_rvizs_picture(markers, tmp_path, layout):
    with screen.screen(tmp_path) as (environment, file):
        command = ["rviz", "--display-config", str(ROOT / f"config/rviz/{layout}.rviz"), "--fullscreen"]
        log = tmp_path / "rviz.log"
        with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT) as rviz:
            try:
                def seen():
                    assert rviz.poll() is None, log.read_text()[-1500:]
                    return screen.share_of(screen.picture(file), MEASURED) > 0.002
                assert screen.share_of(screen.picture(file), MEASURED) < 0.0001, "an empty screen has the arm's colour"
                markers.until(seen, "the arm's colour", 60)
            finally:
                screen.end(rviz)
    said = log.read_text()
    assert "could not be loaded" not in said and "failed to load" not in said.lower(), said[-1500:]
