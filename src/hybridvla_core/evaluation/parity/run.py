"""`hybridvla parity`: checks everything in one folder of fixtures and in the `common` folder beside it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

from hybridvla_core.checkpoints.released import load_released
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.parity import common
from hybridvla_core.evaluation.parity.cases import CaseCheck
from hybridvla_core.evaluation.parity.table import Archive, Table
from hybridvla_core.evaluation.parity.train import TrainCheck
from hybridvla_core.transforms.prompt import PromptEncoder

if TYPE_CHECKING:
    import numpy as np

    from hybridvla_core.model.config import SequenceConfig

COMMON = ("images", "preprocess", "diffusion", "action_tokens")


def check_folder(folder: Path, tokenizer: Optional[Path] = None) -> Table:
    """Runs our model on one recorded variant.

    Args:
        folder: Folder with `dims.json`, `run/`, `case*.npz`, `cases.json`, `train.npz`, `train.json`, and `common/` beside it.
        tokenizer: The language model's `tokenizer.json`; if given, our own encoding of every recorded prompt is compared, too.

    Returns:
        All comparisons.

    Raises:
        HybridVLAError: The folder does not hold such a recording.
    """
    shared = folder.resolve().parent / "common"
    for path in (folder / "dims.json", folder / "run", folder / "cases.json", shared):
        if not path.exists():
            raise HybridVLAError(f"{path}: missing; parity needs a folder of recorded fixtures with `common` beside it")
    try:
        return _check(folder, shared, tokenizer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise HybridVLAError(f"{folder}: not in the format of its README ({type(error).__name__}: {error})") from error


def _check(folder: Path, shared: Path, tokenizer: Optional[Path]) -> Table:
    table = Table()
    model, statistics = load_released(folder / "run", folder / "dims.json")
    archive = Archive(shared / "images.npz")
    images = {name: archive[name] for name in archive.names}
    strategy = "letterbox" if model.config.towers[0].kind == "clip" else "resize-naive"
    _check_common(shared, images, table)
    family, sequence = model.config.decoder.family, model.config.sequence
    encoder = None if tokenizer is None else PromptEncoder.from_file(tokenizer, sequence)
    rows = _json(shared / "prompts.json")
    _check_prompts(rows, family, sequence, encoder, table)
    prompts = {row[family]["prompt"]: row[family] for row in rows}
    check = CaseCheck(model, images, statistics, prompts, strategy, table, encoder)
    cases = read_mapping(folder / "cases.json")
    for name, case in sorted(cases.items()):
        check.run(Archive(folder / f"{name}.npz"), case)
    if (folder / "train.npz").exists() or (folder / "train.json").exists():
        TrainCheck(model, images, strategy, table).run(Archive(folder / "train.npz"), read_mapping(folder / "train.json"))
    _check_files(folder, {*cases, "train"}, table)
    _check_files(shared, set(COMMON), table)
    return table


def _check_files(folder: Path, known: Set[str], table: Table) -> None:
    """Counts an archive that no check reads as not compared."""
    table.uncompared += [f"{path.name}: the whole file" for path in sorted(folder.glob("*.npz")) if path.stem not in known]


def _check_common(shared: Path, images: Dict[str, np.ndarray], table: Table) -> None:
    common.check_pixels(Archive(shared / "preprocess.npz"), read_mapping(shared / "preprocess.json"), images, table)
    common.check_diffusion(Archive(shared / "diffusion.npz"), read_mapping(shared / "diffusion.json"), table)
    common.check_action_tokens(Archive(shared / "action_tokens.npz"), read_mapping(shared / "action_tokens.json"), table)
    common.check_normalisation(_json(shared / "unnormalize.json"), table)
    common.check_fusion(_json(shared / "fusion.json"), table)


def _check_prompts(rows: List[Dict[str, Any]], family: str, sequence: SequenceConfig,
                   encoder: Optional[PromptEncoder], table: Table) -> None:
    for row in rows:
        recorded: Dict[str, Any] = row[family]
        diffusion = list(recorded["base_ids"]) + [*sequence.before_bod, sequence.bod]
        text = PromptEncoder(None, sequence).prompt(row["instruction"])
        table.compare("prompt text", [text == recorded["prompt"]], [True], 0.0)
        table.compare("token ids", diffusion, recorded["diff_ids"], 0.0)
        table.compare("token ids", diffusion + [sequence.eod, *sequence.after_eod], recorded["ar_ids"], 0.0)
        if encoder is not None and row["instruction"].strip():
            table.compare("token ids, our tokenizer", encoder.ids(row["instruction"]), recorded["diff_ids"], 0.0)
            table.compare("token ids, our tokenizer", encoder.ids(row["instruction"], True), recorded["ar_ids"], 0.0)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HybridVLAError(f"{path}: cannot be read ({error})") from error
