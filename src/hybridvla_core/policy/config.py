"""Configuration of the policy node: its checkpoint, cameras, convention and times.

The action convention is written both here and in the checkpoint; `check_fit` (fit.py) refuses a difference, so that neither
side can silently reinterpret the other (docs/fidelity.md).
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple

from hybridvla_core.configuration import in_range, on_or_off, one_of, require
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.policy.cameras import MAX_AGE_S, MAX_SPREAD_S, CameraRig, CameraSource, check_cameras
from hybridvla_core.policy.remote.settings import RemoteSource
from hybridvla_core.transforms.conventions import ActionConvention

BACKENDS = ("local", "remote")
#: Precision of the weights of the decoder's blocks: as `dtype` says, or in fewer bits.
PRECISIONS = ("full", "fp8", "int8", "int4")
#: CUDA graphs: if there is a GPU, required, or none.
GRAPHS = ("auto", "on", "off")
EXECUTIONS = ("auto", "blocking", "asynchronous", "overlap")


@dataclass(frozen=True)
class PolicyConfig:
    """What `policy_node` and `hybridvla evaluate` need to know besides the checkpoint.

    Attributes:
        checkpoint: Checkpoint folder, relative to the package's root or absolute; empty: named at launch.
        device: torch's name of the device: `cpu`, or `cuda` for the first GPU of CUDA_VISIBLE_DEVICES.
        dtype: torch's name of the data type: `float32`, `bfloat16`.
        mode: Inference mode: `ensemble`, `diffusion` or `autoregressive`.
        seed: Seed of the model's noise (with the observation's stamp).
        cameras: Cameras in the checkpoint's order.
        convention: Meaning of the numbers of actions and states.
        frames: Base frame of each arm, in the order of `convention.arms`.
        prediction_rate_hz: Upper bound of the prediction rate, Hz.
        max_observation_age_s: Age of the oldest image above which nothing is predicted, s.
        max_camera_spread_s: Newest minus oldest image of one observation, s.
        max_state_gap_s: Largest distance in time between the images and the nearest arm state, s.
        keyframe_timeout_s: How long a keyframe may take, s.
        acceptance_timeout_s: How long the filter may take to report that it executes a proposal, before the policy predicts
            anew, s.
        valid_for_margin_s: Time added to the action period of dense actions, s.
        inference_timeout_s: Time without progress after which the inference loop is reported as FAULT, s.
        execution: `blocking` predicts when the last action has been carried out, `asynchronous` while it is (the newest
            observation wins), `overlap` so early that the next chunk arrives when the last one ends; `auto` is blocking for
            keyframes and asynchronous for dense actions.
        all_tokens: Whether to keep decoding when the confidence gate can no longer open.
        noise_samples: Number of noises denoised side by side; the first acts, the spread of all is published.
        graphs: CUDA graphs: `auto`, `on` or `off`.
        compile: Whether blocks go through torch.compile: `auto` (if that works; reported once if not) or `off`.
        precision: `full`, or the weights of the decoder's blocks in fewer bits: `fp8`, `int8`, `int4`. Predictions then differ
            (`hybridvla bench --precision-report`), which is reported at start.
        prepare_on_arrival: Whether to decode and resize every frame when it arrives, and not when it is used.
        reduced_jpeg: Whether to decode compressed images at a fraction of their size: faster, with not quite the same pixels.
        threads: Number of CPU threads for torch; 0: what OMP_NUM_THREADS says, otherwise all processors but one.
        backend: `local` loads the checkpoint here, `remote` asks the server named in `remote`.
        remote: The server for the backend `remote`.
    """

    checkpoint: str
    device: str
    dtype: str
    mode: str
    seed: int
    cameras: Tuple[CameraSource, ...]
    convention: ActionConvention
    frames: Tuple[str, ...]
    prediction_rate_hz: float = 10.0
    max_observation_age_s: float = 0.5
    max_camera_spread_s: float = 0.05
    max_state_gap_s: float = 0.1
    keyframe_timeout_s: float = 10.0
    acceptance_timeout_s: float = 0.5
    valid_for_margin_s: float = 0.1
    inference_timeout_s: float = 5.0
    execution: str = "auto"
    all_tokens: bool = False
    noise_samples: int = 1
    graphs: str = on_or_off("auto")
    compile: str = on_or_off("off")
    precision: str = "full"
    prepare_on_arrival: bool = False
    reduced_jpeg: bool = False
    threads: int = 0
    backend: str = "local"
    remote: Optional[RemoteSource] = None

    def __post_init__(self) -> None:
        Mode.named(self.mode)
        if not 0 <= self.seed < 2 ** 63:
            raise ConfigurationError(f"seed is {self.seed}; use a whole number from 0 below 2^63")
        check_cameras(self.cameras)
        if len(self.frames) != len(self.convention.arms) or not all(self.frames):
            raise ConfigurationError(f"frames must name one base frame for each of the arms "
                                     f"{list(self.convention.arms)}, found {list(self.frames)}")
        one_of("execution", self.execution, EXECUTIONS)
        if self.execution == "overlap" and self.is_keyframe:
            raise ConfigurationError("execution is 'overlap', but keyframes (action_period_s 0) have no end in time; use "
                                     "'blocking' or 'asynchronous'")
        one_of("backend", self.backend, BACKENDS)
        require(self.backend == "local" or not (self.prepare_on_arrival or self.reduced_jpeg),
                "backend is 'remote', whose server prepares the images; set prepare_on_arrival and reduced_jpeg to false")
        one_of("graphs", self.graphs, GRAPHS)
        if self.compile not in ("off", "auto"):
            raise ConfigurationError(f"compile is {self.compile!r}; use off or auto")
        one_of("precision", self.precision, PRECISIONS)
        require(self.backend == "local" or self.precision == "full",
                "backend is 'remote', whose server has the weights; set precision to full")
        usual = (self.noise_samples, self.all_tokens, self.graphs, self.compile) == (1, False, "auto", "off")
        require(self.backend == "local" or usual,
                "backend is 'remote', whose server decides how it predicts; set noise_samples to 1, all_tokens to false, "
                "graphs to auto and compile to off (`hybridvla serve --all-tokens` decodes on)")
        in_range("noise_samples", self.noise_samples, 1, 64)
        in_range("threads", self.threads, 0, 256)
        in_range("prediction_rate_hz", self.prediction_rate_hz, 0.1, 100.0)
        for key, high in (("max_observation_age_s", MAX_AGE_S), ("max_camera_spread_s", MAX_SPREAD_S), ("max_state_gap_s", 1.0),
                          ("keyframe_timeout_s", 60.0), ("acceptance_timeout_s", 60.0), ("valid_for_margin_s", 1.0),
                          ("inference_timeout_s", 600.0)):
            in_range(key, getattr(self, key), 1e-3, high)

    def with_cameras(self, rig: CameraRig) -> PolicyConfig:
        """Returns the same policy with the cameras of another rig; the views must still be the checkpoint's."""
        return replace(self, cameras=rig.cameras, max_observation_age_s=rig.max_age_s or self.max_observation_age_s,
                       max_camera_spread_s=rig.max_spread_s or self.max_camera_spread_s)

    def on_server(self, url: str) -> PolicyConfig:
        """Returns the same policy, predicting on a server; key, certificate and times as in `remote`, if there is one."""
        remote = replace(self.remote, url=url) if self.remote is not None else RemoteSource(url)
        return replace(self, backend="remote", remote=remote)

    @property
    def inference_mode(self) -> Mode:
        return Mode.named(self.mode)

    @property
    def is_keyframe(self) -> bool:
        return self.convention.action_period_s == 0.0

    @property
    def execution_way(self) -> str:
        """`execution` with `auto` resolved."""
        if self.execution != "auto":
            return self.execution
        return "blocking" if self.is_keyframe else "asynchronous"

    def valid_for(self, chunk: int) -> float:
        """Returns for how many seconds from receipt a proposal of `chunk` steps is valid: its duration plus a margin; for a
        keyframe, its timeout."""
        if self.is_keyframe:
            return self.keyframe_timeout_s
        return chunk * self.convention.action_period_s + self.valid_for_margin_s
