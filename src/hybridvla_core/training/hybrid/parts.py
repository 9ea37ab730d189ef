"""Names that a configuration may use."""
from __future__ import annotations

#: Terms of the loss.
DIFFUSION, TOKENS = "diffusion", "tokens"
PATCHES, POINTING, PLACES, ATTENTION = "patches", "pointing", "places", "attention"
STATE_ACTION, SUBTASK = "state_action", "subtask"
GROUNDING = (PATCHES, POINTING, PLACES, ATTENTION, STATE_ACTION, SUBTASK)
TERMS = (DIFFUSION, TOKENS, *GROUNDING)
#: What a stage trains; the embedders of state, timestep and noise, the final layer and the heads always are.
TRAINED = ("align", "finetune", "full", "last_layer", "sandwich", "towers")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16")
AUGMENTATIONS = ("none", "released", "photometric")
STATISTICS = ("data", "init")
#: Where the networks between numbers and embeddings come from: those of the checkpoint, or new ones for another robot.
EMBEDDERS = ("init", "new")
EXPORTS = ("float16", "bfloat16", "float32")
#: What is equally likely in a step: any row of a data set, or any moment, however many sentences it has.
DRAWS = ROWS, MOMENTS = ("rows", "moments")
