"""Start of a run: data sets that fit together, a new model or a checkpoint, and the meaning of its numbers."""
from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from tokenizers import Tokenizer

from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
from hybridvla_core.checkpoints.format import STATISTICS, Checkpoint, read_checkpoint, read_config
from hybridvla_core.checkpoints.manifest import FORMAT
from hybridvla_core.checkpoints.tokenizer import check_tokenizer
from hybridvla_core.configuration import from_mapping
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import ConfigurationError, DataError, few
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.presets import TINY_SEQUENCE, preset
from hybridvla_core.training.frames import KEPT_EPISODES, FrameSet, Pictures
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.grounding.data import check_grid, check_turns, subtasks_of
from hybridvla_core.training.hybrid.scales import check_covered, own_names, statistics_of
from hybridvla_core.training.hybrid.stages import learned
from hybridvla_core.training.tokenizer import build_tiny_tokenizer, with_new_words
from hybridvla_core.transforms.conventions import DOF_PER_ARM, ActionConvention
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.prompt import load_tokenizer

LOGGER = logging.getLogger(__name__)
#: Values that data with relative rotations need not state: the arm's name, for one arm, and the rotation's reference.
UNSAID = {"arms": ["arm"], "rotation_reference_xyzw": [0.0, 0.0, 0.0, 1.0]}
#: Keys that must be equal in data that are trained on together, and in a checkpoint that is trained further.
MEANING = ("arms", "translation", "rotation", "rotation_reference_xyzw", "gripper_sense")
#: Further keys that must be equal in data that are trained on together: where a delta begins, and what a state is.
ORIGIN = ("delta_base", "state_source")


@dataclass(frozen=True)
class Start:
    """Everything that a run needs before its first step.

    Attributes:
        base: The checkpoint of `--init`, if any.
        checkpoint: Configuration of the checkpoint that is exported after the last step.
        statistics: Statistics of every data set, by name, as exported.
        tokenizer: Tokenizer of the language model.
        sets: The data sets.
        subtasks: Names of the task steps to learn, in the order of their numbers.
        widened: Channels that are scaled by min and max although their data set's own file says otherwise.
    """

    base: Optional[Checkpoint]
    checkpoint: CheckpointConfig
    statistics: Mapping[str, Any]
    tokenizer: Tokenizer
    sets: Tuple[FrameSet, ...]
    subtasks: Tuple[str, ...] = ()
    widened: Tuple[str, ...] = ()

    @property
    def model(self) -> ModelConfig:
        return self.checkpoint.model


@dataclass(frozen=True)
class Outcome:
    """Facts known about a run's checkpoint before there are data.

    Attributes:
        model: Its architecture; views, chunk and channels are still those of its start.
        untrained, trained: Values that its configuration will state.
    """

    model: ModelConfig
    untrained: Tuple[str, ...]
    trained: Tuple[str, ...]


def prepare(config: TrainingConfig, data: Sequence[Path], init: Optional[Path], views: Sequence[str] = ()) -> Start:
    """Opens data sets and checkpoint and checks that they fit together.

    Args:
        config: Configuration of the run.
        data: Folders of data sets.
        init: Folder of the checkpoint to start from.
        views: Other names that the first camera may have in a set (mixtures of many).

    Returns:
        Everything that the run starts from.

    Raises:
        ConfigurationError: Neither a preset nor `init` is given, or both are.
        DataError: There is no data set, or two have one name.
        HybridVLAError: Something else does not fit; the message names it.
    """
    if not data:
        raise DataError("no data set is given; make one with `hybridvla dataset`, and name its folder with --data")
    _check_beginning(config, init)
    datasets = [LeRobotDataset(folder, KEPT_EPISODES) for folder in data]
    names = own_names(datasets)
    base = None if init is None else read_checkpoint(init)
    conventions = [_convention(dataset, base) for dataset in datasets]
    for dataset, convention in zip(datasets[1:], conventions[1:]):
        _same(convention, conventions[0], f"{dataset.folder}", f"{datasets[0].folder}", MEANING + ORIGIN)
        _same_time(convention, conventions[0], f"{dataset.folder}", f"{datasets[0].folder}")
    if config.state_noise.angle_rad and conventions[0].rotation != "absolute_euler_xyz":
        raise ConfigurationError(f"state_noise: angle_rad needs absolute rotations, and those of {datasets[0].folder} are "
                                 "relative to the state; leave it out")
    cameras = config.cameras or (base.config.cameras if base is not None else tuple(datasets[0].description.views))
    own = [_views(dataset, cameras, views) for dataset in datasets]
    model = _model(config, base, conventions[0], len(cameras))
    config.grounding.placing(cameras, model.patches)
    own_statistics = [statistics_of(dataset, config.statistics_tail) for dataset in datasets]
    statistics = {name: found.entry for name, found in zip(names, own_statistics)}
    widened = tuple(f"{name}: {channel}" for name, found in zip(names, own_statistics) for channel in found.widened)
    scales = [Normaliser.from_json(statistics, name, model.action_dim, str(dataset.folder))
              for name, dataset in zip(names, datasets)]
    key = names[0]
    if base is not None and config.statistics == "init":
        _same(conventions[0], base.config.convention, str(datasets[0].folder), str(base.folder))
        key = base.config.statistics_key
        statistics, widened = dict(base.statistics), ()
        of_base = Normaliser.from_json(statistics, key, model.action_dim, str(base.folder / STATISTICS),
                                        base.config.constant_channel)
        for dataset in datasets:
            check_covered(dataset, of_base, base.folder)
        scales = [of_base] * len(datasets)
    _warn_of_scales(datasets, names, scales)
    checkpoint = _checkpoint(config, base, model, conventions[0], cameras, key)
    pictures = Pictures(cameras, model.towers, checkpoint.image_strategy)
    if config.grounding.used:
        for dataset in datasets:
            check_grid(dataset, model)
    check_turns(config.grounding, datasets)
    sets = tuple(FrameSet(dataset, names_here, pictures, scale, model.chunk)
                 for dataset, names_here, scale in zip(datasets, own, scales))
    for frames in sets:
        frames.read([frames.train[0]])
    return Start(base, checkpoint, statistics, _tokenizer(config, base, model), sets, subtasks_of(config.grounding, datasets),
                 widened)


def foresee(config: TrainingConfig, init: Optional[Path]) -> Outcome:
    """Tells, before there are data, what the checkpoint after the last step will be.

    Args:
        config: Configuration of the run.
        init: Folder of the checkpoint to start from.

    Returns:
        The known facts.

    Raises:
        ConfigurationError: Neither a preset nor `init` is given, or both are.
        HybridVLAError: `init` cannot be read, or no term of a stage has a weight.
    """
    _check_beginning(config, init)
    base = None if init is None else read_config(init)
    untrained, trained = learned(config, base, config.stages)
    return Outcome(_sequenced(config, preset(config.preset) if base is None else base.model), untrained, trained)


def _check_beginning(config: TrainingConfig, init: Optional[Path]) -> None:
    if (init is None) == (not config.preset):
        raise ConfigurationError("a run starts either from a preset of its configuration or from --init CHECKPOINT; give one of "
                                 "them")


def _sequenced(config: TrainingConfig, model: ModelConfig) -> ModelConfig:
    return replace(model, sequence=replace(model.sequence, kind=config.sequence, state=config.state))


def _convention(dataset: LeRobotDataset, base: Optional[Checkpoint]) -> ActionConvention:
    said = dataset.description.convention
    if said is None:
        raise DataError(f"{dataset.folder}: does not say what its actions mean; write their convention into {layout.OURS}"
                        + _of_base(dataset, base))
    filled = {**UNSAID, **said} if said.get("rotation") == "delta_euler_xyz" else dict(said)
    convention = from_mapping(ActionConvention, filled, f"{dataset.folder / layout.OURS}: convention")
    if len(dataset.description.action_names) != convention.action_dim:
        raise DataError(f"{dataset.folder}: {len(dataset.description.action_names)} action channels for {len(convention.arms)} "
                        f"arm(s); {convention.action_dim} are needed")
    return convention


def _of_base(dataset: LeRobotDataset, base: Optional[Checkpoint]) -> str:
    """Returns what the file would say of data whose actions mean what the checkpoint's mean. Nobody but the user knows that."""
    if base is None or base.config.untrained:
        return ""
    convention = base.config.convention
    content: Dict[str, Any] = {"convention": {key: value for key, value in asdict(convention).items() if value is not None}}
    if not dataset.description.grippers:
        content["grippers"] = [arm * DOF_PER_ARM + DOF_PER_ARM - 1 for arm in range(len(convention.arms))]
    return f". If they mean what those of {base.folder} mean, write {json.dumps(content)}"


def _same(ours: ActionConvention, theirs: ActionConvention, here: str, there: str, keys: Sequence[str] = MEANING) -> None:
    for key in ours.differences(theirs):
        if key in keys:
            raise DataError(f"{here}: {key} is {getattr(ours, key)!r} and {getattr(theirs, key)!r} in {there}; train them "
                            "separately")


def _same_time(ours: ActionConvention, theirs: ActionConvention, here: str, there: str) -> None:
    """Refuses a mix of keyframes and dense actions; two rates may mix, as in the paper's pretraining."""
    periods = ours.action_period_s, theirs.action_period_s
    if (periods[0] == 0) != (periods[1] == 0):
        raise DataError(f"{here}: action_period_s is {periods[0]} and {periods[1]} in {there}: one leads to keyframes, and the "
                        "other to the pose one period later; train them separately")
    if periods[0] != periods[1]:
        LOGGER.warning("%s: action_period_s is %s and %s in %s; the checkpoint will state the latter", here, *periods, there)


def _warn_of_scales(datasets: Sequence[LeRobotDataset], names: Sequence[str], scales: Sequence[Normaliser]) -> None:
    """Warns that a checkpoint can state one set's scales only."""
    said = [(scale.action.as_json(), scale.state.as_json()) for scale in scales]
    others = [name for name, here in zip(names, said) if here != said[0]]
    if others:
        LOGGER.warning("%s: the checkpoint gets the statistics of this set (%s) and scales every state and answer by them; those "
                       "of %s differ. Join sets of one robot first, with `hybridvla dataset merge DIR DIR -o NEW`",
                       datasets[0].folder, names[0], few(others))


def _views(dataset: LeRobotDataset, cameras: Sequence[str], others: Sequence[str]) -> Tuple[str, ...]:
    """Returns the set's own names of the cameras."""
    there = dataset.description.views
    found: List[str] = []
    for camera in cameras:
        names = [name for name in ((camera, *others) if len(cameras) == 1 else (camera,)) if name in there]
        if not names:
            raise DataError(f"{dataset.folder}: has no view {camera}; it has {', '.join(there)}. Name the cameras in the "
                            "configuration, in the model's order")
        found.append(names[0])
    return tuple(found)


def _model(config: TrainingConfig, base: Optional[Checkpoint], convention: ActionConvention, views: int) -> ModelConfig:
    if base is None:
        model = preset(config.preset)
    else:
        model = base.config.model
        if model.action_dim != convention.action_dim and config.embedders == "init":
            raise DataError(f"{base.folder}: has {model.action_dim} action channels, the data {convention.action_dim}; write "
                            "embedders: new and statistics: data, so that state and action get networks of their own")
        before = (model.sequence.kind, model.sequence.state)
        if before != (config.sequence, config.state) and not base.config.untrained:
            raise ConfigurationError(f"{base.folder}: was trained with sequence {before[0]} and its state as {before[1]}; write "
                                     "the same")
    chunk = config.chunk or (model.chunk if base is not None else 1)
    return replace(_sequenced(config, model), views=views, chunk=chunk, action_dim=convention.action_dim)


def _checkpoint(config: TrainingConfig, base: Optional[Checkpoint], model: ModelConfig, convention: ActionConvention,
                cameras: Tuple[str, ...], key: str) -> CheckpointConfig:
    untrained, trained = learned(config, None if base is None else base.config, config.stages)
    if base is None:
        start = CheckpointConfig(
            format=FORMAT, model=model, convention=convention, cameras=cameras, image_strategy="resize-naive",
            ensemble=EnsembleConfig.paper(), ddim_steps=4, autoregressive_condition="denoised",
            statistics_key=key, untrained=untrained, trained=trained)
    else:
        # With the data's own statistics, channels that never move were normalised to zero.
        constant = base.config.constant_channel if config.statistics == "init" else "zero"
        start = replace(base.config, model=model, convention=convention, cameras=cameras, statistics_key=key,
                        untrained=untrained, trained=trained, constant_channel=constant)
    window = start.ensemble.confidence_window_bins if config.confidence_window_bins is None else config.confidence_window_bins
    return replace(start, image_strategy=config.image_strategy or start.image_strategy,
                   ddim_steps=config.ddim_steps or start.ddim_steps,
                   ensemble=replace(start.ensemble, confidence_window_bins=window))


def _tokenizer(config: TrainingConfig, base: Optional[Checkpoint], model: ModelConfig) -> Tokenizer:
    if base is not None:
        return with_new_words(load_tokenizer(base.tokenizer_file))
    if config.tokenizer:
        check_tokenizer(config.tokenizer, model)
        return load_tokenizer(config.tokenizer)
    if replace(model.sequence, kind=1, state="embedding") != TINY_SEQUENCE:
        raise ConfigurationError(f"preset {config.preset} needs the language model's tokenizer.json; name it as tokenizer")
    return build_tiny_tokenizer()
