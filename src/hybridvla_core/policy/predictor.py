"""`Policy`: one observation in, one prediction out."""
from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from hybridvla_core.checkpoints.format import Checkpoint, read_checkpoint, read_weights
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import ConfigurationError, DeviceError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.shrunk.choose import check_dtype, check_precision
from hybridvla_core.policy.inference.answer_first import AnswerFirst
from hybridvla_core.policy.inference.assemble import Assembler
from hybridvla_core.policy.inference.device_memory import check_device, explained, out_of_memory, ran_out
from hybridvla_core.policy.inference.drafts import ConfidenceGate, FirstDraft
from hybridvla_core.policy.inference.dual_path import DualPath
from hybridvla_core.policy.inference.graphs import choose_stages
from hybridvla_core.policy.inference.observations import ObservationReader
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.stage_clock import StageClock
from hybridvla_core.policy.inference.tensors import PredictionInputs
from hybridvla_core.transforms.conventions import DOF_PER_ARM, ActionConvention
from hybridvla_core.transforms.images import PreparedImage
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.pictures import decode_reduced
from hybridvla_core.transforms.prompt import PromptEncoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MOST_SAMPLES = 64


class Policy:
    """A checkpoint ready to predict.

    One prediction is one vision pass, one prefix pass, the denoising steps on the cached prefix, and the passes that verify the
    tokens after them (paper, section 3.3).

    Args:
        checkpoint: A verified checkpoint.
        model: The model with its weights, on the device that computes.
        mode: `ensemble`, or the path that acts alone.
        all_tokens: Whether to decode every token even when the confidence gate can no longer open, so that both paths' actions
            can be inspected; otherwise a prediction may end sooner (`Prediction.ar_complete` is then False) with the same action.
        noise_samples: Number of noises denoised side by side on one prefix; the first one acts, and the spread of all is
            reported.
        graphs: `auto` (CUDA graphs on a GPU), `on` or `off`.
        ride_steps: See `DualPath`.
        compile: `auto` runs the blocks through torch.compile if that works (`model/compiled.py`).
        precision: `full`, or the weights of the decoder's blocks in fewer bits (`model/shrunk`), which changes predictions.
    """

    def __init__(self, checkpoint: Checkpoint, model: HybridVLA, mode: str = "ensemble", all_tokens: bool = True,
                 noise_samples: int = 1, graphs: str = "auto", ride_steps: Optional[int] = None, compile: str = "off",
                 precision: str = "full") -> None:
        if not 1 <= noise_samples <= MOST_SAMPLES:
            raise ConfigurationError(f"noise_samples is {noise_samples}; use 1 to {MOST_SAMPLES}")
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self.model, self.precision = model.eval().for_inference(precision, compile), precision
        self.engine = PlainDecoding(self.model, self.config.ddim_spacing)
        self.mode = _mode(mode)
        self.all_tokens, self.noise_samples = all_tokens, noise_samples
        self.prompts = PromptEncoder.from_file(checkpoint.tokenizer_file, self.config.model.sequence)
        self.normaliser = Normaliser.from_json(checkpoint.statistics, self.config.statistics_key,
                                               self.config.model.action_dim,
                                               str(checkpoint.folder / "dataset_statistics.json"),
                                               self.config.constant_channel)
        self.device = next(model.parameters()).device
        self.grippers = tuple(range(6, self.config.model.action_dim, DOF_PER_ARM))
        ensemble, dims = self.config.ensemble, self.config.model.action_dim
        self.path: Union[DualPath, AnswerFirst]
        if self.config.model.sequence.answers_first:
            self.path = AnswerFirst(self.engine, self.config.ddim_steps, ensemble.confidence_window_bins,
                                    "autoregressive" in self.config.trained)
        else:
            self.path = DualPath(
                self.engine, self.config.ddim_steps, ConfidenceGate(ensemble, dims),
                FirstDraft(self.engine.tokens, self.normaliser.action, self.grippers, self.device),
                ensemble.confidence_window_bins, choose_stages(graphs, self.device), ride_steps)
        self._assembler = Assembler(ensemble, self.normaliser.action, self.grippers, self.engine.tokens)
        self._reader = ObservationReader(self.config, self.engine, self.normaliser, self.prompts, self.device, noise_samples,
                                         lambda longest: self.path.stages.text_width(longest))

    @classmethod
    def from_checkpoint(cls, folder: Union[str, Path], mode: str = "ensemble", device: str = "cpu",
                        dtype: str = "float32", all_tokens: bool = True, noise_samples: int = 1,
                        graphs: str = "auto", ride_steps: Optional[int] = None, compile: str = "off",
                        precision: str = "full") -> Policy:
        """Loads a checkpoint folder.

        Args:
            folder: Folder of the checkpoint.
            mode: See `Policy`.
            device: `cpu` or `cuda`.
            dtype: Data type of the computation, `float32` or `bfloat16`.
            all_tokens: See `Policy`.
            noise_samples: See `Policy`.
            graphs: See `Policy`.
            ride_steps: See `Policy`.
            compile: See `Policy`.
            precision: See `Policy`.

        Returns:
            The policy.

        Raises:
            CheckpointError: The folder is not a complete checkpoint.
            ConfigurationError: A choice does not fit.
            DeviceError: The device is missing, or has too little memory.
        """
        check_device(device)
        return cls.of(read_checkpoint(Path(folder)), mode, device, dtype, all_tokens, noise_samples, graphs, ride_steps, compile,
                      precision)

    @classmethod
    def of(cls, checkpoint: Checkpoint, mode: str = "ensemble", device: str = "cpu", dtype: str = "float32",
           all_tokens: bool = True, noise_samples: int = 1, graphs: str = "auto", ride_steps: Optional[int] = None,
           compile: str = "off", precision: str = "full") -> Policy:
        """Does as `from_checkpoint` with a checkpoint that has been read; its inference settings may have changed since."""
        if dtype not in DTYPES:
            raise ConfigurationError(f"dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        check_device(device)
        check_dtype(dtype, device)
        check_precision(precision, device, dtype)
        with explained(checkpoint.config.model, dtype, device):
            with torch.device("meta"):
                model = HybridVLA(checkpoint.config.model)
            model = model.to(dtype=DTYPES[dtype]).to_empty(device=device)
            read_weights(checkpoint, model)
            if device == "cpu" and checkpoint.config.model.decoder.hidden <= 512:
                model.vision_backbone.use_fused_attention(False)
            return cls(checkpoint, model, mode, all_tokens, noise_samples, graphs, ride_steps, compile, precision)

    @property
    def convention(self) -> ActionConvention:
        return self.config.convention

    @property
    def cameras(self) -> Tuple[str, ...]:
        return self.config.cameras

    @property
    def chunk(self) -> int:
        return self.config.chunk

    @property
    def manifest_sha256(self) -> str:
        return self.checkpoint.manifest_sha256

    def prepare(self, image: np.ndarray, view: str) -> PreparedImage:
        """Does the part of the pre-processing that needs only one image, so that it can run when the image arrives.

        Args:
            image: (height, width, 3) uint8 RGB.
            view: View of its camera.

            Returns:
                The object that replaces the image in an `Observation`.
        """
        return PreparedImage(image, view, self.config.model.towers, self.config.image_strategy)

    def prepare_jpeg(self, data: bytes, view: str, encoding: Optional[str] = None) -> PreparedImage:
        """Does the same with a compressed message: a JPEG is decoded at a fraction of its size.

        This is faster and does not give quite the same pixels.

        Args:
            data: The encoded file.
            view: View of its camera.
            encoding: The message's format, which says whether red and blue are exchanged.

            Returns:
                The object that replaces the image in an `Observation`.
        """
        towers = self.config.model.towers
        image, shape = decode_reduced(data, max(tower.image_size for tower in towers), f"camera {view}", encoding or "")
        prepared = PreparedImage(image, view, towers, self.config.image_strategy)
        prepared.shape = shape
        return prepared

    def unknown_words(self, instruction: str) -> List[str]:
        """Returns the words of an instruction that have no id; raises ObservationError for an instruction that cannot be used."""
        self._reader.ids_of(instruction)
        return self.prompts.unknown_words(instruction)

    def clipped(self, state: np.ndarray) -> List[int]:
        """Returns the channels of a state (A,) in physical units that are outside the data; the model sees them at its edge."""
        return self.normaliser.state.clipped(state)

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Predicts one action chunk.

        The noise comes from (seed, observation.stamp_ns), so a prediction can be repeated.

        Args:
            observation: Images, state and instruction.
            mode: Mode to use instead of the policy's own.
            seed: Seed of the noise.

        Returns:
            The action (K, A), physical units, and how it was obtained.

        Raises:
            ObservationError: A view, a state channel or the instruction cannot be used; the message names it.
        """
        return self._predict([observation], mode, seed)[0]

    def predict_batch(self, observations: Sequence[Observation], mode: Union[str, Mode, None] = None, seed: int = 0
                      ) -> List[Prediction]:
        """Does the same as `predict` for many observations, whose instructions may differ in length; all share the passes.

        With graphs they run in a few batch sizes, padded with the last observation; the surplus predictions are dropped.

        Args:
            observations: One observation per prediction.
            mode: Mode to use instead of the policy's own.
            seed: Seed of the noise.

        Returns:
            The predictions, in order.
        """
        predictions: List[Prediction] = []
        for count, size in self.path.stages.batches(len(observations)) if observations else ():
            part = list(observations[len(predictions):len(predictions) + count])
            predictions += self._predict(part + part[-1:] * (size - count), mode, seed)[:count]
        return predictions

    @torch.inference_mode()
    def _predict(self, observations: Sequence[Observation], mode: Union[str, Mode, None], seed: int) -> List[Prediction]:
        chosen = self._trained(self.mode if mode is None else _mode(mode))
        try:
            clock = StageClock(self.device)
            inputs = self.inputs(observations, seed)
            clock.lap("preprocess")
        except RuntimeError as error:    # a GPU lost between two predictions; anything else may be the observation's fault
            if "CUDA" in str(error) or ran_out(error):
                raise self._explained(error) from error
            raise
        autoregressive = chosen == Mode.AUTOREGRESSIVE
        try:
            result = self.path.run(inputs, diffusion=not autoregressive, decode=chosen != Mode.DIFFUSION,
                                   all_tokens=self.all_tokens or autoregressive, lap=clock.lap)
            times = clock.per(len(observations))
        except (RuntimeError, MemoryError) as error:  # RuntimeError: torch's for a lost GPU and for memory, or a subclass
            raise self._explained(error) from error
        return [self._assembler.prediction(result, i, chosen, seed, times) for i in range(len(observations))]

    def _trained(self, mode: Mode) -> Mode:
        """Returns the mode if its paths were trained; otherwise raises ConfigurationError."""
        if mode != Mode.DIFFUSION and "autoregressive" not in self.config.trained:
            why, cure = "as its source said", ""
            if self.checkpoint.manifest["provenance"].get("unfinished"):
                why, cure = "because its run is unfinished", ", or run the same command again"
            raise ConfigurationError(f"{self.checkpoint.folder}: its tokens were never trained, {why}, so mode "
                                     f"{mode.name.lower()} cannot be used; use mode diffusion{cure}")
        return mode

    def _explained(self, error: Exception) -> Exception:
        """Turns refused memory or a failure of the GPU into a sentence; any other error is a fault of ours and stays as it is."""
        if ran_out(error):
            dtype = next(name for name, value in DTYPES.items() if value == self.engine.dtype)
            return DeviceError(out_of_memory(self.config.model, dtype, str(self.device)))
        if self.device.type != "cuda":
            return error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return DeviceError(f"{self.device} failed during a prediction ({first}); restart the policy, and look at the "
                           "driver's log if it happens again")

    def inputs(self, observations: Sequence[Observation], seed: int) -> PredictionInputs:
        """Prepares the model's inputs: pictures, words, state and noise, on its device.

        Args:
            observations: One observation per prediction.
            seed: Seed of the noise.

            Returns:
                The tensors in the form that the first stage takes.
        """
        return self._reader.read(observations, seed)


def _mode(name: Union[str, Mode]) -> Mode:
    return name if isinstance(name, Mode) else Mode.named(name)
