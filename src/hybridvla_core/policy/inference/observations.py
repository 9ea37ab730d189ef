"""Conversion of observations (images, states and instructions) to the tensors of a prediction."""
from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch

from hybridvla_core.checkpoints.config import CheckpointConfig
from hybridvla_core.contracts import Observation
from hybridvla_core.errors import ObservationError
from hybridvla_core.model.sequence import prefix_length
from hybridvla_core.policy.inference.noise import draw_more_noise, draw_noise
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.tensors import PredictionInputs
from hybridvla_core.transforms.images import to_pixels
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.prompt import PromptEncoder

#: Longest prompt in ids, and number of texts whose ids are remembered.
MOST_TEXT_IDS, KEPT_TEXTS = 256, 256


class ObservationReader:
    """Prepares the model's inputs on its device.

    Args:
        config: Configuration of the checkpoint.
        engine: Engine of the model, which has the ids of actions and the schedule.
        normaliser: Normaliser of states.
        prompts: Encoder of instructions.
        device: Device of the model.
        noise_samples: Number of noise samples of each observation.
        text_width: Function from the length of a text to the length to which it is padded.
    """

    def __init__(self, config: CheckpointConfig, engine: PlainDecoding, normaliser: Normaliser, prompts: PromptEncoder,
                 device: torch.device, noise_samples: int, text_width: Callable[[int], int]) -> None:
        self._config, self._engine, self._normaliser, self._prompts = config, engine, normaliser, prompts
        self._device, self._noise_samples, self._text_width = device, noise_samples, text_width
        self._prefix_ids: Dict[str, List[int]] = {}

    def read(self, observations: Sequence[Observation], seed: int) -> PredictionInputs:
        """Reads a batch of observations.

        Args:
            observations: Images, state (A,) in physical units, instruction and stamp of each.
            seed: Seed of the noise, together with each observation's stamp.

        Returns:
            The tensors of a prediction.

        Raises:
            ObservationError: A view, a state channel or an instruction cannot be used; the message names it.
        """
        chunk, dims = self._config.model.chunk, self._config.model.action_dim
        draws = [draw_noise(seed, o.stamp_ns, chunk, dims) for o in observations]
        noise = [torch.cat([draw[0][None], draw_more_noise(seed, o.stamp_ns, self._noise_samples - 1, chunk, dims)])
                 for draw, o in zip(draws, observations)]
        state = np.stack([self._state(o) for o in observations])
        texts = [self._text(o.instruction, row) for o, row in zip(observations, state)]
        condition = None
        if self._config.autoregressive_condition != "denoised":
            released = self._config.autoregressive_condition == "released"
            steps = [draw[2] if released else self._engine.schedule.steps - 1 for draw in draws]
            condition = (self._upload(torch.stack([draw[1] for draw in draws])), self._upload(torch.tensor(steps)))
        text, lengths = self._padded(texts)
        return PredictionInputs(self._pixels(observations), self._upload(text), self._upload(torch.from_numpy(state).float()),
                      self._upload(torch.stack(noise)), None if lengths is None else self._upload(lengths), condition)

    def _padded(self, texts: Sequence[List[int]]) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Returns ids (B, T), and the prefixes' lengths (B,) if they differ or T is rounded up to a static shape."""
        longest = max(map(len, texts))
        width = self._text_width(longest)
        if width == min(map(len, texts)):
            return torch.tensor(list(texts)), None
        rows = [text + [self._config.model.sequence.pad] * (width - len(text)) for text in texts]
        return torch.tensor(rows), torch.tensor([prefix_length(self._config.model, len(text)) for text in texts])

    def _upload(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _pixels(self, observations: Sequence[Observation]) -> Dict[str, torch.Tensor]:
        rows = []
        for observation in observations:
            surplus = sorted(set(observation.images) - set(self._config.cameras))
            if surplus:
                raise ObservationError(f"view {', '.join(surplus)} is unknown to the checkpoint, which was trained with "
                                       f"{', '.join(self._config.cameras)}; leave it out")
            missing = [name for name in self._config.cameras if name not in observation.images]
            if missing:
                raise ObservationError(f"view {', '.join(missing)} is missing; the checkpoint needs "
                                       f"{', '.join(self._config.cameras)}")
            rows.append(to_pixels([observation.images[name] for name in self._config.cameras], self._config.cameras,
                                  self._config.model.towers, self._config.image_strategy))
        return {kind: self._upload(torch.stack([row[kind] for row in rows])) for kind in rows[0]}

    def _state(self, observation: Observation) -> np.ndarray:
        state = np.asarray(observation.state, dtype=np.float64)
        if state.shape != (self._config.model.action_dim,):
            raise ObservationError(f"the robot state has shape {state.shape}, the checkpoint needs "
                                   f"({self._config.model.action_dim},)")
        if not np.isfinite(state).all():
            raise ObservationError(f"the robot state is not finite in channel {np.flatnonzero(~np.isfinite(state)).tolist()}")
        return self._normaliser.state.normalise(state)

    def _text(self, instruction: str, state: np.ndarray) -> List[int]:
        """Returns the ids from after BOS to before the state, which is normalised (A,)."""
        sequence = self._config.model.sequence
        if sequence.state == "words":
            words = self._engine.tokens.encode(torch.from_numpy(state).float()).tolist()
            ids = self._known(instruction)
            return [*ids[:len(ids) - len(sequence.behind_text)], *words, *sequence.behind_text]
        return self._known(instruction)

    def _known(self, instruction: str) -> List[int]:
        if instruction not in self._prefix_ids:
            ids = self.ids_of(instruction)
            while len(self._prefix_ids) >= KEPT_TEXTS:
                del self._prefix_ids[next(iter(self._prefix_ids))]
            self._prefix_ids[instruction] = ids
        return self._prefix_ids[instruction]

    def ids_of(self, instruction: str) -> List[int]:
        """Encodes an instruction.

        Args:
            instruction: The instruction as given.

        Returns:
            Ids from after BOS to before the state.

        Raises:
            ObservationError: The instruction cannot be used, or is too long.
        """
        ids = self._prompts.prefix_ids(instruction)
        if len(ids) > MOST_TEXT_IDS:
            raise ObservationError(f"the instruction takes {len(ids)} tokens of at most {MOST_TEXT_IDS}; say it shorter")
        return ids
