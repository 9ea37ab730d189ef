"""A moved module imported by its old name: the error names the new place, and every old name has one."""
from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from hybridvla_core import moved
from hybridvla_core.paths import ROOT

OLD = json.loads((ROOT / "test/setup/recorded_interface.json").read_text(encoding="utf-8"))["modules"]


def standing(module):
    """Whether the module's file or folder is in the tree."""
    path = ROOT / "src" / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("old, new", [("hybridvla_core.conventions", "hybridvla_core.transforms.conventions"),
                                      ("hybridvla_ros.camera_feed", "hybridvla_ros.observation.camera_feed"),
                                      ("hybridvla_sim.rig", "hybridvla_sim.fr3.rig"),
                                      ("hybridvla_core.cli.bench", "hybridvla_cli")])
def test_an_old_name_is_answered_with_the_new_one(old, new):
    with pytest.raises(ImportError, match=rf"has moved to {new}; import it from there"):
        importlib.import_module(old)


def test_a_name_of_a_module_that_is_a_folder_today_is_answered_too():
    with pytest.raises(ImportError, match=r"what the module hybridvla_core.safety.motion held is in .*motion.motion"):
        from hybridvla_core.safety.motion import Motion  # noqa: F401
    from hybridvla_core.safety.motion import motion

    assert motion.Motion


@pytest.mark.parametrize("old, new", sorted(moved.GONE.items()))
def test_a_module_that_is_no_more_is_answered_with_what_does_its_work(old, new):
    with pytest.raises(ImportError, match=rf"{old} is no more, .*; {new} does the same"):
        importlib.import_module(old)
    assert not standing(old)


@pytest.mark.parametrize("module, old, new", [(module, old, new) for module, names in moved.RENAMED.items()
                                              for old, new in names.items()])
def test_an_old_name_of_a_class_is_answered_with_the_new_one(module, old, new):
    with pytest.raises(ImportError, match=rf"{module}.{old} is called {new} now"):
        exec(f"from {module} import {old}")
    assert getattr(importlib.import_module(module), new)


@pytest.mark.parametrize("package", ["hybridvla_core", "hybridvla_ros", "hybridvla_sim"])
def test_any_package_of_ours_brings_the_answers(package):
    code = f"import {package}, sys; print(sum(type(f).__name__ == 'MovedFinder' for f in sys.meta_path))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, encoding="utf-8")
    assert done.stdout == "1\n"


def test_a_name_that_never_was_ours_stays_an_ordinary_error():
    for name in ("hybridvla_core.never", "hybridvla_core.safety.never", "never_installed"):
        with pytest.raises(ModuleNotFoundError, match="No module named"):
            importlib.import_module(name)


def test_every_old_module_stands_or_leads_to_one_that_does():
    lost = [name for name in OLD if name not in moved.MOVED and name not in moved.GONE and not standing(name)
            and name.rpartition(".")[0] not in moved.MOVED]
    assert lost == []
    assert [new for new in (*moved.MOVED.values(), *moved.GONE.values()) if not standing(new)] == []
