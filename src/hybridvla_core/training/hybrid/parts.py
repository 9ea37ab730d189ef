"""Names that may be used in a configuration."""
from __future__ import annotations

#: Terms of the loss.
DIFFUSION, TOKENS = "diffusion", "tokens"
PATCHES, POINTING, PLACES, ATTENTION = "patches", "pointing", "places", "attention"
STATE_ACTION, SUBTASK = "state_action", "subtask"
GROUNDING = (PATCHES, POINTING, PLACES, ATTENTION, STATE_ACTION, SUBTASK)
TERMS = (DIFFUSION, TOKENS, *GROUNDING)
#: Parts that a stage may train; it always trains the embedders of state, timestep and noise, the final layer and the heads.
TRAINED = ("align", "finetune", "full", "last_layer", "sandwich", "towers")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16")
AUGMENTATIONS = ("none", "released", "photometric")
STATISTICS = ("data", "init")
#: Origin of the networks between numbers and embeddings: those of the checkpoint, or new ones for another robot.
EMBEDDERS = ("init", "new")
EXPORTS = ("float16", "bfloat16", "float32")
#: Unit that is drawn with equal probability: a row of a data set, or a moment, however many sentences it has.
DRAWS = ROWS, MOMENTS = ("rows", "moments")
