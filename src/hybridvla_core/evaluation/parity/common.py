"""Fixtures that need no model: pixels, schedule, token arithmetic, normalisation, the final norm."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, List, Mapping, Sequence

import numpy as np
import torch

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.evaluation.parity.table import COARSE, EXACT, FINE, Archive, Table
from hybridvla_core.model import presets
from hybridvla_core.model.config import TowerConfig
from hybridvla_core.model.embedders import FinalNorm, timestep_features
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.ensemble import fuse
from hybridvla_core.transforms.images import fit, normalise_pixels
from hybridvla_core.transforms.normalise import Normaliser, Scale


def check_pixels(archive: Archive, description: Mapping[str, Any], images: Mapping[str, np.ndarray], table: Table) -> None:
    """Compares every recorded strategy and tower: bytes exactly, normalised values within rounding."""
    sizes = {archive.peek(name).shape[0] for name in archive.names if name.endswith("/u8")} or {224}
    size = sizes.pop()
    for name in archive.names:
        image, strategy, kind, quantity = name.split("/")
        entry = description[kind]
        tower = TowerConfig(kind, size, size, 16, 2, 1, 16, tuple(entry["mean"]), tuple(entry["std"]))
        pixels = fit(images[image], size, strategy, tower.mean)
        if quantity == "u8":
            table.compare("pixels after resizing", pixels, archive[name], EXACT)
            continue
        scaled = normalise_pixels(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255.0, tower)
        if quantity.startswith("float_stride"):
            stride = int(quantity[len("float_stride"):])
            table.compare("pixels, normalised", scaled[:, ::stride, ::stride], archive[name], 1e-5)
        elif quantity == "float_sum":
            total = np.array([scaled.double().sum(), scaled.double().abs().sum()])
            table.compare("pixels, sum over the image / 1e4", total / 1e4, archive[name] / 1e4, COARSE)
    for target, source in description.get("u8_source", {}).items():
        image, strategy, kind = target.split("/")
        mean = tuple(description[kind]["mean"])
        table.compare("pixels after resizing", fit(images[image], size, strategy, mean), archive[source], EXACT)
    table.leave(archive)


def check_diffusion(archive: Archive, description: Mapping[str, Any], table: Table) -> None:
    schedule = DiffusionSchedule()
    for name in archive.names:
        if name.startswith("base/"):
            table.compare("schedule", getattr(schedule, name[5:]), archive[name], 1e-12)
        elif name.startswith("ddim"):
            _check_spacing(schedule, int(name[4:].split("/")[0]), name.split("/")[1], archive, name, table)
    t = archive["q_sample/t"]
    abar = schedule.alphas_cumprod[t][:, None, None]
    noisy = np.sqrt(abar) * archive["q_sample/x0"] + np.sqrt(1 - abar) * archive["q_sample/noise"]
    table.compare("forward diffusion", noisy, archive["q_sample/x_t"], FINE)
    features = timestep_features(torch.from_numpy(archive["timestep_embedding/t"]))
    table.compare("timestep features", features, archive["timestep_embedding/feat"], FINE)
    for kind, expected in (("variance", "y"), ("mean_square", "y_mean_square_variant")):
        norm = FinalNorm(archive["final_norm/weight"].shape[0], kind)
        norm.weight.data = torch.from_numpy(archive["final_norm/weight"])
        with torch.no_grad():
            result = norm(torch.from_numpy(archive["final_norm/x"]))
        table.compare(f"final norm ({kind})", result, archive[f"final_norm/{expected}"], FINE)
    table.compare("valid DDIM counts", schedule.valid_counts(), description["valid_ddim_counts"], EXACT)
    for count, kept in description.get("timesteps", {}).items():
        if kept is None:
            table.compare("impossible DDIM counts", [int(count) in schedule.valid_counts()], [False], EXACT)
        else:
            table.compare("DDIM timesteps", schedule.ddim_timesteps(int(count)), kept, EXACT)
    table.leave(archive)


def _check_spacing(schedule: DiffusionSchedule, count: int, what: str, archive: Archive, name: str, table: Table) -> None:
    spaced = schedule.ddim(count)
    if what == "timestep_map":
        table.compare("DDIM timesteps", spaced.timesteps, archive[name], EXACT)
    elif what == "analytic_traj":
        expected = archive[name]
        x = torch.from_numpy(expected[0])
        trajectory = [x]
        for index in reversed(range(count)):
            eps = 0.3 * x + 0.01 * float(spaced.timesteps[index]) / 99.0
            x = spaced.step(index, x, eps)[1]
            trajectory.append(x)
        table.compare("DDIM trajectory without a network", torch.stack(trajectory), expected, FINE)
    else:
        table.compare("DDIM schedule", getattr(spaced, what), archive[name], 1e-9)


def check_action_tokens(archive: Archive, description: Mapping[str, Any], table: Table) -> None:
    """Compares the conversion of values to ids and back for both vocabularies, with and without the released script's shift."""
    ends = {"llama2": (presets.LLAMA_SEQUENCE, "hybridvla-7b"), "phi2": (presets.PHI_SEQUENCE, "hybridvla-2.7b")}
    for name in archive.names:
        if name == "bins":
            table.compare("bin edges", ActionTokens(presets.preset("hybridvla-7b")).edges, archive[name], 1e-12)
            continue
        family, what = name.split("/")
        if what not in ("encode_ids", "decode_values"):
            continue  # inputs of the two conversions, which are read with them; anything else counts as not compared
        stem, shift = family.split("_sub")
        sequence, preset = ends[stem]
        tokens = ActionTokens(presets.preset(preset, sequence=replace(sequence, need_to_sub=int(shift))))
        ranges = description.get(family)
        if ranges:
            table.compare("range of action ids", [tokens.first, tokens.end - 1, tokens.bins],
                          [ranges["first_action_id"], ranges["last_action_id"], ranges["n_bins"]], EXACT)
        if what == "encode_ids":
            ids = tokens.encode(torch.from_numpy(archive[f"{family}/encode_values"]))
            table.compare("action values to ids", ids, archive[name], EXACT)
        else:
            values = tokens.decode(torch.from_numpy(archive[f"{family}/decode_ids"]))
            table.compare("ids to action values", values, archive[name], 1e-9)
    table.leave(archive)


def check_normalisation(recorded: List[Mapping[str, Any]], table: Table) -> None:
    tokens = ActionTokens(presets.preset("hybridvla-7b"))
    for row in recorded:
        dof = row["dof"]
        grippers = tuple(range(6, dof, 7))
        normaliser = Normaliser.from_json({"set": row["stats"]}, "set", dof, "unnormalize.json")
        sample = np.array(row["diff_normalized_sample"], dtype=np.float64).reshape(-1, dof)
        table.compare("diffusion action, un-normalised", _released_units(normaliser.action, sample, grippers),
                      np.array(row["diff_action"]).reshape(-1, dof), FINE)
        values = tokens.decode(torch.tensor(row["ar_token_ids"])).numpy()
        table.compare("autoregressive action, un-normalised", _released_units(normaliser.action, values, grippers),
                      np.array(row["ar_action"]), 1e-6)
        table.compare("state, normalised", normaliser.state.normalise(np.array(row["robot_state"])),
                      np.array(row["proprio_normalized"]).reshape(-1), FINE)


def _released_units(scale: Scale, values: np.ndarray, grippers: Sequence[int]) -> np.ndarray:
    """Un-normalises an action with a quirk of the released code that we leave out (docs/fidelity.md).

    Without a mask, the statistics also scale the decided gripper, so that closed becomes 0.5.

    Args:
        scale: Scale of the actions.
        values: (..., A) normalised values.
        grippers: Channels of the grippers.

    Returns:
        (..., A) values in physical units.
    """
    action = scale.unnormalise(values, grippers)
    for channel in grippers:
        if scale.mask[channel]:
            span = scale.q99[channel] - scale.q01[channel]
            action[..., channel] = 0.5 * (action[..., channel] + 1.0) * span + scale.q01[channel]
    return action


def check_fusion(recorded: List[Mapping[str, Any]], table: Table) -> None:
    """Compares the released fusion rule and robot loop (`fusion.json`)."""
    for row in recorded:
        config = EnsembleConfig.released(float(row["threshold"]))
        confidence = np.array(row["confidences"])
        diffusion, tokens = np.array(row["diff_action"]), np.array(row["ar_action"])
        # The released loop uses the sum alone.
        fused = config.score(confidence) > config.theta
        action = fuse(diffusion, tokens, config) if fused else diffusion
        sent = action[:6].copy()
        sent[:3] += np.array(row["robot_state"])[7:10]
        table.compare("fusion decision", [fused], [bool(row["fused"])], EXACT)
        table.compare("fusion sum of six", confidence[:6].sum(), row["sum_first6"], 1e-9)
        table.compare("fused pose sent", sent, row["pose6_sent"], 1e-9)
        table.compare("fused gripper sent", action[6], row["gripper_sent"], 1e-9)
