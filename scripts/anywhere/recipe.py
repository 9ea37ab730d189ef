"""Writes OUT/recipe.yaml for `scripts/train_anywhere.sh`, before any data: RECIPE OUT RIG INIT DEVICE; INIT may be - for none.

A run keeps the recipe with which it began. A recipe that cannot start, or whose precision the processor emulates, is
reported before hours of data.
"""
import re
import sys
from pathlib import Path

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.files import write_text
from hybridvla_core.processor import slowness
from hybridvla_core.training.hybrid.config import read_recipe
from hybridvla_sim.rigs import RIGS

OF_A_PRESET = re.compile(r"^(?:preset|tokenizer):.*(?:\n|\Z)", re.MULTILINE)


def keep(recipe: Path, out: Path, rig: str, init: str) -> None:
    """Writes the recipe of this run; drops preset and tokenizer if a checkpoint is given, because it has its own.

    Args:
        recipe: File of the recipe.
        out: Folder of the run.
        rig: Rig of the run's data.
        init: Folder of the checkpoint to start from, or `-`.

    Raises:
        HybridVLAError: The training began with another recipe, or recipe and checkpoint do not make a training of this rig.
    """
    kept = out / "recipe.yaml"
    try:
        text = recipe.read_text(encoding="utf-8")
    except OSError as error:
        raise HybridVLAError(f"TRAIN_RECIPE {recipe}: cannot be read ({error.strerror})") from error
    if init != "-":
        text = OF_A_PRESET.sub("", text)
    begun = (out / "train").is_dir() or (out / "train.json").is_file()
    if kept.is_file() and kept.read_text(encoding="utf-8") != text and begun:
        raise HybridVLAError(f"{kept}: the training in {out} was begun with this recipe, and TRAIN_RECIPE or TRAIN_INIT asks for "
                             f"another one; leave them as they were, name another OUT, or remove {out / 'train'} and "
                             f"{out / 'train.json'} to begin the training anew on the same data")
    read_recipe(recipe)       # so that errors refer to the file that was named
    partial = kept.with_name("recipe.partial.yaml")
    try:
        write_text(partial, text)
        config = read_recipe(partial)
    finally:
        partial.unlink(missing_ok=True)
    if init != "-":
        from hybridvla_core.checkpoints.format import read_checkpoint

        named = RIGS[rig]
        wanted = load_configs(named.policy, named.robot, "diffusion")[0].convention.action_dim
        found = read_checkpoint(Path(init)).config.model.action_dim
        if found != wanted and config.embedders == "init":
            raise HybridVLAError(f"TRAIN_INIT {init}: has {found} action channels, the data of the {rig} rig {wanted}; name "
                                 "another checkpoint, - for none, or a TRAIN_RECIPE without preset and with embedders: new")
        if config.preset:
            raise HybridVLAError(f"{recipe}: names the preset {config.preset}, and the model is that of the checkpoint "
                                 f"TRAIN_INIT {init}; take the preset out of the recipe")
    elif not config.preset:
        raise HybridVLAError(f"{recipe}: names no preset, so it needs a checkpoint to start from; name one by TRAIN_INIT")
    write_text(kept, text)


def warn(out: Path, device: str) -> None:
    """Warns of a precision that the device emulates while another one can still be chosen: before the training begins."""
    precision = read_recipe(out / "recipe.yaml").precision
    slow = "" if (out / "train").is_dir() else slowness(precision, device)
    if slow:
        print(f"train_anywhere: precision: {precision}: {slow}; begin with TRAIN_RECIPE=FILE, a copy of the recipe with "
              "precision: float32", file=sys.stderr)


if __name__ == "__main__":
    try:
        keep(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
        warn(Path(sys.argv[2]), sys.argv[5])
    except HybridVLAError as found:
        sys.exit(f"train_anywhere: {found}")
