"""A computer that cannot render: the error says so, whatever renders there."""
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
