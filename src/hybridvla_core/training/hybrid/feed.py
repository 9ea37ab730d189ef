"""The batch of any step, determined by its number alone: its frames, their noise, and everything computed from them."""
from __future__ import annotations

import contextlib
import math
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hybridvla_core.checkpoints.config import CheckpointConfig
from hybridvla_core.data.mixture import Mixture
from hybridvla_core.data.sample import Sample
from hybridvla_core.errors import DataError, HybridVLAError
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.training.augment import disturb, draw_augmentation
from hybridvla_core.training.frames import Fitted, FrameSet
from hybridvla_core.training.hybrid import draws
from hybridvla_core.training.hybrid.batch import Batch, Mentions
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.parts import MOMENTS
from hybridvla_core.training.hybrid.rows import markers_behind_text, token_behind_actions
from hybridvla_core.transforms.prompt import PromptEncoder

#: A sample, its pictures, and the number of its set.
Read = Tuple[Sample, Fitted, int]
#: Most object names whose words are cached, some hundred bytes each; when there are more, the cache is emptied.
KEPT_NAMES = 1 << 14


class Feed:
    """Source of batches, made of frames drawn from the sets of a mixture.

    Args:
        sets: Data sets in the mixture's order.
        mixture: Shares of the sets.
        prompts: Encoder of instructions to ids.
        checkpoint: Configuration of the exported checkpoint: architecture, denoising steps, what an action starts from.
        config: Configuration of the run.
        rows: Returns, for a step's batch size, this process's rows of it.
        subtasks: Names of the task steps, in the order of their numbers.
    """

    def __init__(self, sets: Sequence[FrameSet], mixture: Mixture, prompts: PromptEncoder, checkpoint: CheckpointConfig,
                 config: TrainingConfig, rows: Callable[[int], slice], subtasks: Sequence[str] = ()) -> None:
        self._subtasks = {name: number for number, name in enumerate(subtasks)}
        self.sets, self.mixture, self.prompts, self.config, self.rows = sets, mixture, prompts, config, rows
        self.model, convention = checkpoint.model, checkpoint.convention
        # Both are the measured pose, or both the last command: an action starts from the very state that the model sees.
        self.from_state = (convention.delta_base == "measured") == (convention.state_source == "measured")
        self.tokens = ActionTokens(self.model)
        self.noise = draws.Noise(config.objective, checkpoint.ddim_steps, checkpoint.ddim_spacing)
        self._texts: Dict[str, List[int]] = {}
        self._words: Dict[Tuple[str, Tuple[Tuple[int, int], ...]], Optional[Tuple[int, int]]] = {}

    def training(self, stage: int, step: int, batch: int) -> Batch:
        """Reads the batch of a step.

        Args:
            stage: Number of the stage.
            step: Step within the stage.
            batch: Samples over all processes.

        Returns:
            This process's rows of the batch.

        Raises:
            DataError: A frame cannot be read.
        """
        seed, rows, labels = self.config.seed, self.rows(batch), self.config.labels
        moments = slice(rows.start // labels, rows.stop // labels)
        read: List[Read] = []
        for index, drawn in self._moments(stage, step, batch // labels)[moments]:
            samples, fitted = self.sets[index].read(drawn)
            read += [(sample, fitted, index) for sample in samples]
        augment = shifts = None
        if self.config.augment != "none":
            rng = draws.generator(seed, draws.AUGMENT, stage, step)
            augment = torch.from_numpy(draw_augmentation(self.config.augment, (batch // labels, self.model.views), rng)[moments])
        if self.config.state_noise.used:
            rng, dims = draws.generator(seed, draws.STATE, stage, step), self.model.action_dim
            shifts = (rng.standard_normal((batch // labels, dims)) * self.config.state_noise.sizes(dims // 7))[moments]
            shifts = shifts.repeat(labels, axis=0)
        return self._batch(read, augment, shifts, stage, step, batch, rows, labels)

    def _moments(self, stage: int, step: int, count: int) -> List[Tuple[int, List[int]]]:
        """Returns (data set, as many frames as there are labels) of every moment of a step."""
        # First one frame is drawn, independent of `labels`. Other frames of its moment follow in random order; if there are too
        # few, they are repeated. So all frames of a set are equally frequent, or all moments if moments are drawn.
        rng, draw = draws.generator(self.config.seed, draws.FRAMES, stage, step), self.config.draw
        sizes = [frames.size(draw) for frames in self.sets]
        found: List[Tuple[int, List[int]]] = []
        for index, place in zip(*self.mixture.draw(count, sizes, rng)):
            frames = self.sets[index]
            among = frames.drawn(draw, int(place))
            drawn = [among[int(rng.integers(len(among)))] if draw == MOMENTS else among[0]]
            if self.config.labels > 1:
                others = [frame for frame in frames.moment(drawn[0]) if frame != drawn[0]]
                # Ordering one or none takes no random number.
                drawn += [others[other] for other in rng.permutation(len(others))] if len(others) > 1 else others
            found.append((int(index), [drawn[label % len(drawn)] for label in range(self.config.labels)]))
        return found

    def validation(self, size: int) -> List[List[Tuple[int, int]]]:
        """Returns (data set, frame) of the validation, in batches of at most `size`; evenly spread over the validation split."""
        every = [(index, frame) for index, frames in enumerate(self.sets) for frame in frames.validation]
        wanted = min(self.config.validation_frames, len(every))
        picked = [every[i * len(every) // wanted] for i in range(wanted)]
        return [picked[begin:begin + size] for begin in range(0, wanted, size)]

    def validation_batch(self, number: int, frames: Sequence[Tuple[int, int]]) -> Batch:
        """Reads a batch of the validation; its noise is the same each time."""
        read: List[Read] = []
        for index, frame in frames:
            (sample,), fitted = self.sets[index].read([frame])
            read.append((sample, fitted, index))
        return self._batch(read, None, None, draws.VALIDATION, number, len(read), slice(0, len(read)), 1)

    def _batch(self, read: Sequence[Read], augment: Optional[torch.Tensor], shifts: Optional[np.ndarray], stage: int, step: int,
               batch: int, rows: slice, labels: int) -> Batch:
        samples = [sample for sample, _, _ in read]
        state, actions = self._numbers(samples, [index for _, _, index in read], shifts)
        texts = self._text([sample.instruction for sample in samples], state)
        lengths = [len(ids) for ids in texts]
        longest, pad = max(lengths), [self.model.sequence.pad]
        text = torch.from_numpy(np.array([ids + pad * (longest - len(ids)) for ids in texts], dtype=np.int64))
        tokens = self.tokens.encode(actions[:, 0])
        behind = torch.full_like(tokens[:, :1], token_behind_actions(self.model))
        pixels = {key: torch.from_numpy(np.stack([fitted[key] for _, fitted, _ in read[::labels]])) for key in read[0][1]}
        return Batch(
            pixels=pixels, augment=augment, text=text, lengths=torch.tensor(lengths), state=state, actions=actions,
            padding=torch.from_numpy(np.stack([sample.padding for sample in samples])), tokens=tokens,
            targets=torch.cat([tokens, behind], dim=1),
            noise=self.noise.draw(self.config.seed, stage, step, batch, rows, actions),
            mentions=self._mentions(samples) if self.config.grounding.used else None,
            subtasks=torch.tensor([self._subtasks.get(sample.subtask, -1) for sample in samples]) if self._subtasks else None)

    def _numbers(self, samples: Sequence[Sample], sets: Sequence[int], shifts: Optional[np.ndarray]
                 ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Returns states (B, A) and actions (B, K, A), normalised by their sets' scales; `shifts` (B, A) disturbs the states."""
        state, actions = np.stack([sample.state for sample in samples]), np.stack([sample.actions for sample in samples])
        if shifts is not None:
            state, actions = disturb(state, actions, shifts, self.from_state)
            # Only these have changed since the sample was checked.
            for values, sentence in ((state, "the state holds a number that is not finite"),
                                     (actions[:, 0], "an action is not finite")):
                for row in np.flatnonzero(~np.isfinite(values).all(axis=1)):
                    raise DataError(f"episode {samples[row].episode}, frame {samples[row].frame}: {sentence}")
        found = np.empty(state.shape, dtype=np.float32), np.empty(actions.shape, dtype=np.float32)
        for index in set(sets):
            rows, scales = np.flatnonzero(np.asarray(sets) == index), self.sets[index].scales
            found[0][rows] = scales.state.normalise(state[rows])
            found[1][rows] = scales.action.normalise(actions[rows])
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    def _text(self, instructions: Sequence[str], state: torch.Tensor) -> List[List[int]]:
        """Returns the ids from after BOS to before the state."""
        for instruction in instructions:
            if instruction not in self._texts:
                self._texts[instruction] = self.prompts.text_ids(instruction)
        behind = list(markers_behind_text(self.model))
        if self.model.sequence.state != "words":
            return [self._texts[instruction] + behind for instruction in instructions]
        return [self._texts[instruction] + words + behind
                for instruction, words in zip(instructions, self.tokens.encode(state).tolist())]

    def _words_of(self, instruction: str, spans: Tuple[Tuple[int, int], ...]) -> Optional[Tuple[int, int]]:
        """Returns the encoder's result, cached: the tokenizer takes most of the time of a mention."""
        asked = instruction, spans
        if asked not in self._words:
            if len(self._words) >= KEPT_NAMES:
                self._words.clear()
            self._words[asked] = self.prompts.words_of(instruction, spans)
        return self._words[asked]

    def _mentions(self, samples: Sequence[Sample]) -> Mentions:
        found: Dict[Tuple[int, int, int], int] = {}      # index in the lists
        places: List[List[float]] = []                   # place and turn
        rows: List[int] = []                             # rows of `patches`, and columns
        columns: List[int] = []
        unknown = [math.nan] * 5
        for row, sample in enumerate(samples):
            for item in sample.grounding:
                words = self._words_of(sample.instruction, item.spans)
                if words is None:
                    continue
                place = [*(unknown[:3] if item.place is None else item.place), *(item.turn or unknown[:2])]
                number = found.setdefault((row, *words), len(places))
                if number == len(places):
                    places.append(place)
                else:      # several objects, in older data sets: they have no common place
                    places[number] = unknown
                for view, begin in zip(sample.images, range(0, self.model.views * self.model.patches, self.model.patches)):
                    indices = np.asarray(item.patches.get(view, ()), dtype=np.int64).tolist()
                    if indices and max(indices) >= self.model.patches:
                        raise DataError(f"episode {sample.episode}, frame {sample.frame}: grounding names patch {max(indices)} "
                                        f"of view {view}, and the model sees {self.model.patches}")
                    rows += [number] * len(indices)
                    columns += [begin + index for index in indices]
        numbers = torch.tensor(list(found), dtype=torch.long).reshape(-1, 3)
        patches = torch.zeros(len(found), self.model.views * self.model.patches, dtype=torch.bool)
        patches.numpy()[rows, columns] = True
        where = torch.from_numpy(np.array(places, dtype=np.float32).reshape(-1, 5))
        return Mentions(numbers[:, 0], numbers[:, 1], numbers[:, 2], patches, where[:, :3], where[:, 3:])


class _Steps(Dataset):  # type: ignore[misc,unused-ignore]
    """Batches by step; if a worker cannot read one, it returns the error itself, so that the message is preserved."""

    def __init__(self, feed: Feed, stage: int, batch: int) -> None:
        self.feed, self.stage, self.batch = feed, stage, batch

    def __getitem__(self, step: int) -> Union[Batch, HybridVLAError]:
        try:
            return self.feed.training(self.stage, step, self.batch)
        except HybridVLAError as error:
            return error


@contextlib.contextmanager
def deaths_named() -> Iterator[None]:
    """Reports that a process of `read_ahead` was killed, wherever in the work this is raised.

    Yields:
        Control to the work.

    Raises:
        HybridVLAError: A process was killed, mostly by the system for lack of memory.
        RuntimeError: Any other one of the work.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise HybridVLAError(f"a process that reads training data was killed ({str(error).splitlines()[0]}); the system does "
                             "that when memory runs out: end other programs or set `workers` lower in the recipe (0: "
                             "none), and the same command goes on from the last saved state") from error


def read_ahead(feed: Feed, stage: int, batch: int, first: int, last: int, workers: int, pinned: bool
               ) -> Iterable[Union[Batch, HybridVLAError]]:
    """Returns the batches of steps `first` to before `last`, made by `workers` processes while the model computes."""
    return DataLoader(_Steps(feed, stage, batch), sampler=range(first, last), batch_size=None, num_workers=workers,
                      pin_memory=pinned, prefetch_factor=2 if workers else None)
