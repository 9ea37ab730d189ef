"""Robot adapters: one file a robot. `make` chooses by the configuration's `driver`."""
from __future__ import annotations

from typing import Any, Callable

from hybridvla_core.contracts import ArmState
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.safety.config import RobotConfig


def make(config: RobotConfig, on_state: Callable[[ArmState], None], operator: Any = None):
    """The adapter of a robot; `on_state` is called with every state it reads. operator: the filter as slower work of an
    adapter sees it (`operator_view.Operator`)."""
    if config.driver == "franka_cartesian":
        from hybridvla_ros.adapters.pose_topic import PoseTopicAdapter

        return PoseTopicAdapter(config, on_state)
    if config.driver == "franka_ros":
        from hybridvla_ros.adapters.franka.adapter import FrankaAdapter

        return FrankaAdapter(config, on_state, operator)
    if config.driver in ("agilex_joint", "agilex_pos_cmd"):
        from hybridvla_ros.adapters.agilex import AgilexAdapter

        return AgilexAdapter(config, on_state, operator)
    raise ConfigurationError(f"robot {config.name}: there is no adapter for driver {config.driver!r} in this version")
