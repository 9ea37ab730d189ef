"""`config/conventions`: the released conventions as documented, and the steps of docs/fidelity.md from them to a robot."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from goldens import GOLDEN, needs_golden

from hybridvla_cli.convert import _convention
from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.cameras import CameraRig
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import ActionConvention

SHARED = {"translation": "delta_base_frame", "rotation": "absolute_euler_xyz", "rotation_reference_xyzw": (0.0, 0.0, 0.0, 1.0),
          "gripper_sense": "one_is_open", "delta_base": "commanded", "action_period_s": 0.0, "state_source": "last_command"}
FIRST = (0.27849028, -0.00815899, 1.47193933, -3.14159094, 0.24234043, 3.14158629, 1.0)
RELEASED = {"released_7dof": dict(SHARED, arms=("arm",), first_state=FIRST),
            "released_14dof": dict(SHARED, arms=("right", "left"), first_state=None)}
RIGS = {"7": ("released_7dof", "fr3", ["fr3_realsense"]),
        "14": ("released_14dof", "agilex", ["agilex_orbbec", "agilex_realsense"])}


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_the_shipped_files_are_the_released_conventions(name):
    file = ROOT / "config/conventions" / f"{name}.yaml"
    options = SimpleNamespace(convention=file, **dict.fromkeys((
        "arms", "translation", "rotation", "rotation_reference", "gripper_sense", "delta_base", "action_period", "state_source",
        "first_state")))
    assert vars(_convention(options)) == RELEASED[name]
    assert load_file(ActionConvention, file) == _convention(options)
    assert {path.stem for path in file.parent.glob("*.yaml")} == set(RELEASED)


@needs_golden
def test_the_first_state_is_the_recorded_one():
    episodes = json.loads((GOLDEN / "common" / "fusion.json").read_text())
    assert tuple(episodes[0]["state_given_to_policy"]) == FIRST


@pytest.mark.parametrize("dof", sorted(RIGS))
def test_the_documented_way_fits_checkpoint_cameras_and_robot(tmp_path, dof):
    """Runs the commands of docs/fidelity.md that write the policy's configuration, exactly as written."""
    name, robot, rigs = RIGS[dof]
    text = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    block = next(part for part in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) if f"mine{dof}.yaml" in part)
    convert = re.search(r"hybridvla convert.*?(?<!\\)\n", block, re.S).group()
    assert f"--convention config/conventions/{name}.yaml" in convert and "--final-norm variance" in convert
    views = tuple(re.search(r"--camera-order (\S+)", convert).group(1).split(","))
    assert block.count("--image ") == len(views)
    shutil.copytree(str(ROOT / "config"), str(tmp_path / "config"))
    script = re.search(r"^cat > .*?^sed [^\n]*\n", block, re.M | re.S).group()
    subprocess.run(["bash", "-euc", script], cwd=str(tmp_path), check=True)
    config = load_file(PolicyConfig, tmp_path / f"config/policies/mine{dof}.yaml")
    checkpoint = SimpleNamespace(cameras=views, convention=load_file(ActionConvention, ROOT / f"config/conventions/{name}.yaml"))
    check_fit(checkpoint, config, load_file(RobotConfig, ROOT / f"config/robots/{robot}.yaml"))
    state = re.search(r"--state=(\S+)", block).group(1)
    assert len(state.split(",")) == config.convention.action_dim == int(dof)
    assert any(f"cameras:=config/cameras/{rig}.yaml" in block for rig in rigs)
    for rig in rigs:
        moved = config.with_cameras(load_file(CameraRig, ROOT / f"config/cameras/{rig}.yaml"))
        check_fit(checkpoint, moved, load_file(RobotConfig, ROOT / f"config/robots/{robot}.yaml"))
