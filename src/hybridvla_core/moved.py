"""Old names of modules and classes: importing one names its present name and place, or its replacement.

Kept in version 0.1.0.

The finder is the last one in `sys.meta_path`, so it is asked only for names that no other finder has found.
"""
from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Callable, Dict, NoReturn, Optional, Sequence

#: Old name -> the module that holds its contents now. Some old names are folders today.
MOVED: Dict[str, str] = {
    "hybridvla_core.cli": "hybridvla_cli",
    "hybridvla_core.conventions": "hybridvla_core.transforms.conventions",
    "hybridvla_core.data.statistics": "hybridvla_core.transforms.normalise",
    "hybridvla_core.evaluation.passes": "hybridvla_core.benchmark.passes",
    "hybridvla_core.evaluation.replay.film": "hybridvla_core.evaluation.replay.report.filmstrip",
    "hybridvla_core.evaluation.replay.junit": "hybridvla_core.evaluation.replay.report.junit",
    "hybridvla_core.evaluation.replay.page": "hybridvla_core.evaluation.replay.report.page",
    "hybridvla_core.evaluation.replay.plots": "hybridvla_core.evaluation.replay.report.plots",
    "hybridvla_core.evaluation.replay.senses": "hybridvla_core.evaluation.replay.sensitivity",
    "hybridvla_core.evaluation.statistics": "hybridvla_core.report.statistics",
    "hybridvla_core.model.tiny_tokenizer": "hybridvla_core.training.tokenizer",
    "hybridvla_core.policy.assemble": "hybridvla_core.policy.inference.assemble",
    "hybridvla_core.policy.command_memory": "hybridvla_core.policy.proposing.command_memory",
    "hybridvla_core.policy.device_memory": "hybridvla_core.policy.inference.device_memory",
    "hybridvla_core.policy.drafts": "hybridvla_core.policy.inference.drafts",
    "hybridvla_core.policy.dual_path": "hybridvla_core.policy.inference.dual_path",
    "hybridvla_core.policy.engine": "hybridvla_core.policy.inference.plain",
    "hybridvla_core.policy.ensemble": "hybridvla_core.policy.inference.ensemble",
    "hybridvla_core.policy.graphs": "hybridvla_core.policy.inference.graphs",
    "hybridvla_core.policy.history": "hybridvla_core.policy.proposing.pose_history",
    "hybridvla_core.policy.normalize": "hybridvla_core.transforms.normalise",
    "hybridvla_core.policy.pacing": "hybridvla_core.policy.proposing.pacing",
    "hybridvla_core.policy.preprocess": "hybridvla_core.transforms.images",
    "hybridvla_core.policy.proposals": "hybridvla_core.policy.proposing.proposals",
    "hybridvla_core.policy.proposer": "hybridvla_core.policy.proposing.proposer",
    "hybridvla_core.policy.schedule": "hybridvla_core.model.schedule",
    "hybridvla_core.policy.sequence": "hybridvla_core.transforms.prompt",
    "hybridvla_core.policy.stages": "hybridvla_core.policy.inference.stages",
    "hybridvla_core.policy.workspace": "hybridvla_core.policy.inference.workspace",
    "hybridvla_core.safety.acceptance": "hybridvla_core.safety.inputs.acceptance",
    "hybridvla_core.safety.agilex_config": "hybridvla_core.robots.agilex",
    "hybridvla_core.safety.bench": "hybridvla_core.benchmark.filter",
    "hybridvla_core.safety.braking": "hybridvla_core.safety.motion.braking",
    "hybridvla_core.safety.clock_watch": "hybridvla_core.safety.inputs.clock_watch",
    "hybridvla_core.safety.commands": "hybridvla_core.safety.outputs.commands",
    "hybridvla_core.safety.config": "hybridvla_core.robots.config",
    "hybridvla_core.safety.execution": "hybridvla_core.safety.execution.execution",
    "hybridvla_core.safety.franka_config": "hybridvla_core.robots.franka",
    "hybridvla_core.safety.gripper": "hybridvla_core.safety.execution.gripper",
    "hybridvla_core.safety.homing": "hybridvla_core.safety.execution.homing",
    "hybridvla_core.safety.kinematics": "hybridvla_core.robots.kinematics",
    "hybridvla_core.safety.last_check": "hybridvla_core.safety.motion.last_check",
    "hybridvla_core.safety.limit_config": "hybridvla_core.robots.limits",
    "hybridvla_core.safety.limits.gripper": "hybridvla_core.safety.execution.gripper_stream",
    "hybridvla_core.safety.limits.leash": "hybridvla_core.safety.execution.leash",
    "hybridvla_core.safety.measured": "hybridvla_core.safety.inputs.measured_arm",
    "hybridvla_core.safety.measured_arms": "hybridvla_core.safety.inputs.measured_arms",
    "hybridvla_core.safety.motion": "hybridvla_core.safety.motion.motion",
    "hybridvla_core.safety.outgoing": "hybridvla_core.safety.outputs.audit",
    "hybridvla_core.safety.plan": "hybridvla_core.safety.execution.plan",
    "hybridvla_core.safety.pursuit": "hybridvla_core.safety.motion.pursuit",
    "hybridvla_core.safety.reentry": "hybridvla_core.safety.execution.reentry",
    "hybridvla_core.safety.reporting": "hybridvla_core.safety.status",
    "hybridvla_core.safety.rotations": "hybridvla_core.geometry.rotations",
    "hybridvla_core.safety.solver": "hybridvla_core.safety.motion.solver",
    "hybridvla_core.safety.status_report": "hybridvla_core.safety.outputs.status_report",
    "hybridvla_core.safety.watchdogs": "hybridvla_core.safety.inputs.watchdogs",
    "hybridvla_ros.adapters.agilex": "hybridvla_ros.adapters.agilex.adapter",
    "hybridvla_ros.adapters.agilex_command": "hybridvla_ros.adapters.agilex.command",
    "hybridvla_ros.adapters.agilex_probe": "hybridvla_ros.adapters.agilex.probe",
    "hybridvla_ros.adapters.agilex_status": "hybridvla_ros.adapters.agilex.status",
    "hybridvla_ros.adapters.franka.chores": "hybridvla_ros.adapters.franka.services",
    "hybridvla_ros.arm_feed": "hybridvla_ros.observation.arm_feed",
    "hybridvla_ros.arm_reader": "hybridvla_ros.messages.arm_reader",
    "hybridvla_ros.bag_writer": "hybridvla_ros.recording.bag_writer",
    "hybridvla_ros.bench_images": "hybridvla_ros.benchmarks.images",
    "hybridvla_ros.bench_latency": "hybridvla_ros.benchmarks.latency",
    "hybridvla_ros.camera_feed": "hybridvla_ros.observation.camera_feed",
    "hybridvla_ros.camera_health": "hybridvla_ros.observation.camera_health",
    "hybridvla_ros.camera_identity": "hybridvla_ros.observation.camera_identity",
    "hybridvla_ros.conversions": "hybridvla_ros.messages.conversions",
    "hybridvla_ros.deadman_node": "hybridvla_ros.console.deadman_node",
    "hybridvla_ros.demo": "hybridvla_ros.demos.demo",
    "hybridvla_ros.demo_page": "hybridvla_ros.demos.demo_page",
    "hybridvla_ros.demo_record": "hybridvla_ros.demos.demo_record",
    "hybridvla_ros.episode_keys": "hybridvla_ros.console.episode_keys",
    "hybridvla_ros.episode_node": "hybridvla_ros.recording.episode_node",
    "hybridvla_ros.episodes": "hybridvla_ros.recording.episodes",
    "hybridvla_ros.graph": "hybridvla_ros.runtime.private_graph",
    "hybridvla_ros.graph_watch": "hybridvla_ros.runtime.graph_watch",
    "hybridvla_ros.images": "hybridvla_ros.messages.images",
    "hybridvla_ros.instruction_source": "hybridvla_ros.console.instruction_source",
    "hybridvla_ros.memory": "hybridvla_ros.runtime.memory",
    "hybridvla_ros.node_support": "hybridvla_ros.runtime.node_support",
    "hybridvla_ros.operator_view": "hybridvla_ros.filter_handle",
    "hybridvla_ros.pacing": "hybridvla_ros.runtime.pacing",
    "hybridvla_ros.policy_arms": "hybridvla_ros.messages.arm_reader",
    "hybridvla_ros.realsense_camera": "hybridvla_ros.realsense.camera",
    "hybridvla_ros.realsense_clock": "hybridvla_ros.realsense.clock",
    "hybridvla_ros.realsense_config": "hybridvla_ros.realsense.config",
    "hybridvla_ros.realsense_node": "hybridvla_ros.realsense.node",
    "hybridvla_ros.realsense_sdk": "hybridvla_ros.realsense.sdk",
    "hybridvla_ros.recorder_node": "hybridvla_ros.recording.recorder_node",
    "hybridvla_ros.recorder_topics": "hybridvla_ros.recording.topics",
    "hybridvla_ros.recording": "hybridvla_ros.recording.recording",
    "hybridvla_ros.recording_config": "hybridvla_ros.recording.config",
    "hybridvla_ros.replay.bench": "hybridvla_ros.benchmarks.replay",
    "hybridvla_ros.replay.cli": "hybridvla_cli.replay",
    "hybridvla_ros.rigs_agilex": "hybridvla_ros.demos.rigs_agilex",
    "hybridvla_ros.rigs_demo": "hybridvla_ros.demos.rigs",
    "hybridvla_ros.rigs_fr3": "hybridvla_ros.demos.rigs_fr3",
    "hybridvla_ros.rigs_operator": "hybridvla_ros.demos.rigs_operator",
    "hybridvla_ros.rigs_page": "hybridvla_ros.demos.rigs_page",
    "hybridvla_ros.rigs_timing": "hybridvla_ros.benchmarks.stamp_to_target",
    "hybridvla_ros.sim_cameras": "hybridvla_ros.stand_ins.sim_cameras",
    "hybridvla_ros.sim_rig_node": "hybridvla_ros.stand_ins.sim_rig_node",
    "hybridvla_ros.soak": "hybridvla_ros.benchmarks.soak",
    "hybridvla_ros.spacemouse_node": "hybridvla_ros.console.spacemouse_node",
    "hybridvla_ros.stand_ins.franka_faults": "hybridvla_ros.stand_ins.franka.faults",
    "hybridvla_ros.stand_ins.franka_gripper": "hybridvla_ros.stand_ins.franka.gripper",
    "hybridvla_ros.stand_ins.franka_node": "hybridvla_ros.stand_ins.franka.node",
    "hybridvla_ros.stand_ins.franka_robot": "hybridvla_ros.stand_ins.franka.robot",
    "hybridvla_ros.stand_ins.franka_services": "hybridvla_ros.stand_ins.franka.services",
    "hybridvla_ros.stand_ins.piper_driver": "hybridvla_ros.stand_ins.piper.driver",
    "hybridvla_ros.stand_ins.piper_node": "hybridvla_ros.stand_ins.piper.node",
    "hybridvla_ros.stand_ins.tray_policy": "hybridvla_ros.stand_ins.piper.tray_policy",
    "hybridvla_ros.sync": "hybridvla_ros.observation.camera_sync",
    "hybridvla_ros.teleop": "hybridvla_ros.console.teleop",
    "hybridvla_sim.experts": "hybridvla_sim.tasks.blocks.expert",
    "hybridvla_sim.franka": "hybridvla_sim.fr3.drive",
    "hybridvla_sim.impedance": "hybridvla_sim.fr3.impedance",
    "hybridvla_sim.piper_arm": "hybridvla_sim.piper.arm",
    "hybridvla_sim.piper_expert": "hybridvla_sim.tasks.tray.expert",
    "hybridvla_sim.piper_monitor": "hybridvla_sim.piper.monitor",
    "hybridvla_sim.piper_rig": "hybridvla_sim.piper.rig",
    "hybridvla_sim.piper_scene": "hybridvla_sim.piper.scene",
    "hybridvla_sim.posing": "hybridvla_sim.fr3.posing",
    "hybridvla_sim.rig": "hybridvla_sim.fr3.rig",
    "hybridvla_sim.rollout": "hybridvla_sim.tasks.blocks.rollout",
    "hybridvla_sim.sampler": "hybridvla_sim.tasks.blocks.sampler",
    "hybridvla_sim.scene": "hybridvla_sim.fr3.scene",
    "hybridvla_sim.studio": "hybridvla_sim.tasks.blocks.pictures",
    "hybridvla_sim.tasks": "hybridvla_sim.tasks.blocks.task",
}

#: Module of the removed recipe that learned from .npz shards -> the module that does the same for today's recipe.
GONE: Dict[str, str] = {
    "hybridvla_core.data.shards": "hybridvla_core.data.lerobot.reader",
    "hybridvla_core.training.batches": "hybridvla_core.training.hybrid.feed",
    "hybridvla_core.training.config": "hybridvla_core.training.hybrid.config",
    "hybridvla_core.training.heads": "hybridvla_core.training.hybrid.grounding.heads",
    "hybridvla_core.training.layout": "hybridvla_core.training.hybrid.rows",
    "hybridvla_core.training.recipe": "hybridvla_core.training.hybrid.objective",
    "hybridvla_core.training.rollouts": "hybridvla_sim.demonstrations.acting",
    "hybridvla_core.training.run": "hybridvla_core.training.hybrid.run",
    "hybridvla_core.training.targets": "hybridvla_core.training.hybrid.grounding.heads",
    "hybridvla_core.training.tiny": "hybridvla_core.training.hybrid",
    "hybridvla_core.training.trainer": "hybridvla_core.training.hybrid.loop",
    "hybridvla_sim.datagen": "hybridvla_sim.tasks.blocks.dataset",
    "hybridvla_sim.kinematic": "hybridvla_sim.demonstrations.acting",
    "hybridvla_sim.tasks.blocks.demonstrations": "hybridvla_sim.tasks.blocks.dataset",
    "hybridvla_sim.tasks.blocks.kinematic_world": "hybridvla_sim.demonstrations.acting",
}

#: Module -> old name of something in it -> today's.
RENAMED: Dict[str, Dict[str, str]] = {
    "hybridvla_core.evaluation.replay.settings": {
        f"{name}Settings": f"{name}Config" for name in ("Motion", "Stream", "Error", "Path", "Filter", "Latency", "Replay")},
    "hybridvla_core.evaluation.replay.truth": {"Recording": "RecordedMotion"},
    "hybridvla_ros.observation.camera_feed": {"Frame": "CameraImage"},
}


def old_names(module: str) -> Callable[[str], NoReturn]:
    """Returns a `__getattr__` for a module that answers an old name with today's.

    Args:
        module: Full name of the module.
    """
    def answer(name: str) -> NoReturn:
        if name in RENAMED[module]:
            raise ImportError(f"{module}.{name} is called {RENAMED[module][name]} now", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return answer


class MovedFinder(MetaPathFinder):
    """Finder that finds nothing: it raises an ImportError naming a module's new place, or a removed one's replacement."""

    def find_spec(self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None) -> None:
        """Returns None for a name that was never ours.

        Raises:
            ImportError: `fullname` is an old name, has been removed, or is in a folder that was a module of that name.
        """
        parent, _, name = fullname.rpartition(".")
        if fullname in MOVED:
            raise ImportError(f"{fullname} has moved to {MOVED[fullname]}; import it from there", name=fullname)
        gone = GONE.get(fullname) or GONE.get(parent)
        if gone:
            raise ImportError(f"{fullname} is no more, as the recipe of .npz shards that it was for; {gone} does the same for "
                              "data sets", name=fullname)
        if parent in MOVED:
            raise ImportError(f"{parent} is a folder now and has no {name}; what the module {parent} held is in "
                              f"{MOVED[parent]}", name=fullname)


def install() -> None:
    """Appends the finder after all others, once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
