"""The batch of any step, by its number alone: which frames, their noise, and everything made of them."""
from __future__ import annotations

import contextlib
from dataclasses import replace
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
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.prompt import PromptEncoder

Read = Tuple[Sample, Fitted, Normaliser]


class Feed:
    """Draws frames from the sets of a mixture and makes batches of them.

    Args:
        sets: In the mixture's order.
        mixture: Their shares.
        prompts: Instructions to ids.
        checkpoint: What the exported one will say: architecture, denoising steps, what an action starts from.
        config: Of the run.
        rows: From a step's batch size, this process's rows of it.
        subtasks: Names of the steps of tasks, in the order of their numbers.
    """

    def __init__(self, sets: Sequence[FrameSet], mixture: Mixture, prompts: PromptEncoder, checkpoint: CheckpointConfig,
                 config: TrainingConfig, rows: Callable[[int], slice], subtasks: Sequence[str] = ()) -> None:
        self._subtasks = {name: number for number, name in enumerate(subtasks)}
        self.sets, self.mixture, self.prompts, self.config, self.rows = sets, mixture, prompts, config, rows
        self.model, self.measured = checkpoint.model, checkpoint.convention.delta_base == "measured"
        self.tokens = ActionTokens(self.model)
        self.noise = draws.Noise(config.objective, checkpoint.ddim_steps, checkpoint.ddim_spacing)
        self._texts: Dict[str, List[int]] = {}

    def training(self, stage: int, step: int, batch: int) -> Batch:
        """Reads the batch of a step.

        Args:
            stage: Number of the stage.
            step: Within it.
            batch: Samples over all processes.

        Returns:
            This process's rows of it.

        Raises:
            DataError: A frame cannot be read.
        """
        seed, rows, labels = self.config.seed, self.rows(batch), self.config.labels
        moments = slice(rows.start // labels, rows.stop // labels)
        read: List[Read] = []
        for index, drawn in self._moments(stage, step, batch // labels)[moments]:
            samples, fitted = self.sets[index].read(drawn)
            read += [(sample, fitted, self.sets[index].scales) for sample in samples]
        augment = None
        if self.config.augment != "none":
            rng = draws.generator(seed, draws.AUGMENT, stage, step)
            augment = torch.from_numpy(draw_augmentation(self.config.augment, (batch // labels, self.model.views), rng)[moments])
        if self.config.state_noise.used:
            read = self._disturbed(read, draws.generator(seed, draws.STATE, stage, step), batch // labels, moments)
        return self._batch(read, augment, stage, step, batch, rows, labels)

    def _moments(self, stage: int, step: int, count: int) -> List[Tuple[int, List[int]]]:
        """(data set, as many frames as there are labels) of every moment of a step."""
        # First one frame is drawn, independent of `labels`. Other frames of its moment follow in random order; if there are too
        # few, they are repeated. So all frames of a set are equally frequent, or all moments, where moments are drawn.
        rng, draw = draws.generator(self.config.seed, draws.FRAMES, stage, step), self.config.draw
        sizes = [frames.size(draw) for frames in self.sets]
        found: List[Tuple[int, List[int]]] = []
        for index, place in zip(*self.mixture.draw(count, sizes, rng)):
            frames = self.sets[index]
            among = frames.drawn(draw, int(place))
            drawn = [among[int(rng.integers(len(among)))] if draw == MOMENTS else among[0]]
            if self.config.labels > 1:
                others = [frame for frame in frames.moment(drawn[0]) if frame != drawn[0]]
                drawn += [others[other] for other in rng.permutation(len(others))]
            found.append((int(index), [drawn[label % len(drawn)] for label in range(self.config.labels)]))
        return found

    def _disturbed(self, read: Sequence[Read], rng: np.random.Generator, count: int, moments: slice) -> List[Read]:
        """The samples with noise on their states, one of each moment."""
        dims = self.model.action_dim
        shifts = (rng.standard_normal((count, dims)) * self.config.state_noise.sizes(dims // 7))[moments]
        found: List[Read] = []
        for (sample, fitted, scales), shift in zip(read, shifts.repeat(self.config.labels, axis=0)):
            state, actions = disturb(sample.state, sample.actions, shift, self.measured)
            found.append((replace(sample, state=state, actions=actions), fitted, scales))
        return found

    def validation(self, size: int) -> List[List[Tuple[int, int]]]:
        """(data set, frame) of what is looked at, in batches of at most `size`; evenly spread over the validation split."""
        every = [(index, frame) for index, frames in enumerate(self.sets) for frame in frames.validation]
        wanted = min(self.config.validation_frames, len(every))
        picked = [every[i * len(every) // wanted] for i in range(wanted)]
        return [picked[begin:begin + size] for begin in range(0, wanted, size)]

    def validation_batch(self, number: int, frames: Sequence[Tuple[int, int]]) -> Batch:
        """A batch of the validation; its noise is the same each time."""
        read: List[Read] = []
        for index, frame in frames:
            (sample,), fitted = self.sets[index].read([frame])
            read.append((sample, fitted, self.sets[index].scales))
        return self._batch(read, None, draws.VALIDATION, number, len(read), slice(0, len(read)), 1)

    def _batch(self, read: Sequence[Read], augment: Optional[torch.Tensor], stage: int, step: int, batch: int, rows: slice,
               labels: int) -> Batch:
        samples = [sample for sample, _, _ in read]
        state = np.stack([scales.state.normalise(sample.state) for sample, _, scales in read]).astype(np.float32)
        actions = torch.from_numpy(np.stack([scales.action.normalise(sample.actions) for sample, _, scales in read]
                                            ).astype(np.float32))
        texts = [self._text(sample.instruction, row) for sample, row in zip(samples, state)]
        lengths = torch.tensor([len(text) for text in texts])
        text = torch.full((len(texts), int(lengths.max())), self.model.sequence.pad)
        for row, ids in enumerate(texts):
            text[row, :len(ids)] = torch.tensor(ids)
        tokens = self.tokens.encode(actions[:, 0])
        behind = torch.full_like(tokens[:, :1], token_behind_actions(self.model))
        pixels = {key: torch.from_numpy(np.stack([fitted[key] for _, fitted, _ in read[::labels]])) for key in read[0][1]}
        return Batch(
            pixels=pixels, augment=augment, text=text, lengths=lengths, state=torch.from_numpy(state), actions=actions,
            padding=torch.from_numpy(np.stack([sample.padding for sample in samples])), tokens=tokens,
            targets=torch.cat([tokens, behind], dim=1),
            noise=self.noise.draw(self.config.seed, stage, step, batch, rows, actions),
            mentions=self._mentions(samples) if self.config.grounding.used else None,
            subtasks=torch.tensor([self._subtasks.get(sample.subtask, -1) for sample in samples]) if self._subtasks else None)

    def _text(self, instruction: str, state: np.ndarray) -> List[int]:
        """Ids from after BOS to before the state."""
        if instruction not in self._texts:
            self._texts[instruction] = self.prompts.text_ids(instruction)
        words = self.tokens.encode(torch.from_numpy(state)).tolist() if self.model.sequence.state == "words" else []
        return [*self._texts[instruction], *words, *markers_behind_text(self.model)]

    def _mentions(self, samples: Sequence[Sample]) -> Mentions:
        found: Dict[Tuple[int, int, int], Tuple[np.ndarray, np.ndarray]] = {}     # patches; place and turn
        for row, sample in enumerate(samples):
            for item in sample.grounding:
                words = self.prompts.words_of(sample.instruction, item.spans)
                if words is None:
                    continue
                shown = np.zeros(self.model.views * self.model.patches, dtype=bool)
                for number, view in enumerate(sample.images):      # in the model's order
                    indices = np.asarray(item.patches.get(view, ()), dtype=np.int64)
                    if len(indices) and int(indices.max()) >= self.model.patches:
                        raise DataError(f"episode {sample.episode}, frame {sample.frame}: grounding names patch {indices.max()} "
                                        f"of view {view}, and the model sees {self.model.patches}")
                    shown[number * self.model.patches + indices] = True
                place = np.full(5, np.nan)
                place[:3] = np.nan if item.place is None else item.place
                place[3:] = np.nan if item.turn is None else item.turn
                name = (row, *words)
                if name in found:      # of several things, in older data sets: they have no place in common
                    shown, place = shown | found[name][0], np.full(5, np.nan)
                found[name] = shown, place
        numbers = torch.tensor(list(found), dtype=torch.long).reshape(-1, 3)
        patches = np.array([shown for shown, _ in found.values()], dtype=bool).reshape(-1, self.model.views * self.model.patches)
        places = torch.from_numpy(np.array([place for _, place in found.values()], dtype=np.float32).reshape(-1, 5))
        return Mentions(numbers[:, 0], numbers[:, 1], numbers[:, 2], torch.from_numpy(patches), places[:, :3], places[:, 3:])


class _Steps(Dataset):  # type: ignore[misc,unused-ignore]
    """Batches by step; what a worker cannot read comes back as the error itself, so that its message stays as it is."""

    def __init__(self, feed: Feed, stage: int, batch: int) -> None:
        self.feed, self.stage, self.batch = feed, stage, batch

    def __getitem__(self, step: int) -> Union[Batch, HybridVLAError]:
        try:
            return self.feed.training(self.stage, step, self.batch)
        except HybridVLAError as error:
            return error


@contextlib.contextmanager
def deaths_named() -> Iterator[None]:
    """Names a process of `read_ahead` that is killed, wherever in the work the news of it breaks in.

    Yields:
        To the work.

    Raises:
        HybridVLAError: one was killed, mostly by the system for want of memory.
        RuntimeError: any other of the work.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise HybridVLAError(f"a process that reads training data was ended from outside ({str(error).splitlines()[0]}); the "
                             "system does that for want of memory: end other programs or set `workers` lower in the recipe (0: "
                             "none), and the same command goes on from the last saved state") from error


def read_ahead(feed: Feed, stage: int, batch: int, first: int, last: int, workers: int, pinned: bool
               ) -> Iterable[Union[Batch, HybridVLAError]]:
    """The batches of steps `first` to before `last`, made by `workers` processes while the model computes."""
    return DataLoader(_Steps(feed, stage, batch), sampler=range(first, last), batch_size=None, num_workers=workers,
                      pin_memory=pinned, prefetch_factor=2 if workers else None)
