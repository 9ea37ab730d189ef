"""`hybridvla parity`: everything in one folder of fixtures and in the `common` folder beside it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybridvla_core.checkpoints.released import load_released
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.parity import common
from hybridvla_core.evaluation.parity.cases import CaseCheck, check_fusion
from hybridvla_core.evaluation.parity.table import Archive, Table
from hybridvla_core.evaluation.parity.train import TrainCheck


def check_folder(folder: Path) -> Table:
    """Run our model on a recorded variant; raises HybridVLAError if the folder is not one.

    folder: `dims.json`, `run/`, `case*.npz`, `cases.json`, `train.npz`, `train.json`, with `common/` beside it.
    """
    shared = folder.parent / "common"
    for path in (folder / "dims.json", folder / "run", folder / "cases.json", shared):
        if not path.exists():
            raise HybridVLAError(f"{path}: missing; parity needs a folder of recorded fixtures with `common` beside it")
    table = Table()
    model, statistics = load_released(folder / "run", folder / "dims.json")
    archive = Archive(shared / "images.npz")
    images = {name: archive[name] for name in archive.names}
    strategy = "letterbox" if model.config.towers[0].kind == "clip" else "resize-naive"
    _check_common(shared, images, table)
    family = model.config.decoder.family
    prompts = {row[family]["prompt"]: row[family] for row in _json(shared / "prompts.json")}
    _check_prompts(prompts, model.config.sequence, table)
    check = CaseCheck(model, images, statistics, prompts, strategy, table)
    for name, case in sorted(read_mapping(folder / "cases.json").items()):
        check.run(Archive(folder / f"{name}.npz"), case)
    if (folder / "train.npz").exists():
        TrainCheck(model, images, strategy, table).run(Archive(folder / "train.npz"), read_mapping(folder / "train.json"))
    return table


def _check_common(shared: Path, images: Any, table: Table) -> None:
    common.check_pixels(Archive(shared / "preprocess.npz"), read_mapping(shared / "preprocess.json"), images, table)
    common.check_diffusion(Archive(shared / "diffusion.npz"), read_mapping(shared / "diffusion.json"), table)
    common.check_action_tokens(Archive(shared / "action_tokens.npz"), table)
    common.check_normalisation(_json(shared / "unnormalize.json"), table)
    check_fusion(_json(shared / "fusion.json"), table)


def _check_prompts(prompts: Any, sequence: Any, table: Table) -> None:
    for row in prompts.values():
        diffusion = list(row["base_ids"]) + [*sequence.before_bod, sequence.bod]
        table.compare("token ids", diffusion, row["diff_ids"], 0.0)
        table.compare("token ids", diffusion + [sequence.eod, *sequence.after_eod], row["ar_ids"], 0.0)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HybridVLAError(f"{path}: cannot be read ({error})") from error
