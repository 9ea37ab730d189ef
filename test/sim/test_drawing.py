"""A computer that cannot render: the error says so, whatever renders there. One that can ends without a complaint."""
import os
import subprocess
import sys

import mujoco
import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_sim import tasks
from hybridvla_sim.demonstrations.record import Recorder, Settings
from hybridvla_sim.rigs import RIGS
from hybridvla_sim.suite import make_rig


@pytest.mark.parametrize("name, task", [("fr3", "blocks"), ("agilex", "tray")])
def test_a_scene_that_cannot_be_drawn_is_named(name, task, monkeypatch):
    def blind(*_arguments):
        raise mujoco.FatalError("gladLoadGL\nerror")

    monkeypatch.setattr(mujoco, "Renderer", blind)
    config, robot = load_configs(RIGS[name].policy, RIGS[name].robot, "diffusion")
    with pytest.raises(HybridVLAError, match=r"^the scene cannot be drawn \(gladLoadGL error\); set MUJOCO_GL to egl or osmesa"):
        make_rig(tasks.load(task), robot).render("front")
    with pytest.raises(HybridVLAError, match=f"^task {task}: the scene cannot be drawn"):
        Recorder(task, Settings(RIGS[name].kind, ("front",)), config.convention, robot)


#: Ends with an open renderer, after something else has asked to be closed at the end, as torch and worker processes do.
LEFT_OPEN = """
import sys, weakref
weakref.finalize(sys, print, end="")
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_sim import tasks
from hybridvla_sim.rigs import RIGS
from hybridvla_sim.suite import make_rig
rig = make_rig(tasks.load("blocks"), load_configs(RIGS["fr3"].policy, RIGS["fr3"].robot, "diffusion")[1])
try:
    rig.render("front")
except HybridVLAError:
    sys.exit(3)
"""


@pytest.mark.parametrize("library", ["egl", "osmesa"])
def test_a_process_that_ends_with_an_open_renderer_complains_of_nothing(library):
    environment = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}     # set by mujoco's first use
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], env={**environment, "MUJOCO_GL": library}, capture_output=True,
                          text=True, timeout=120)
    if done.returncode == 3:
        pytest.skip(f"nothing draws by {library} here")
    assert (done.returncode, done.stderr) == (0, "")
