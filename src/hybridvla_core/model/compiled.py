"""Decoder and tower blocks run through torch.compile: fewer, larger kernels from the same code.

All layers share one compiled block per shape. Blocks that cannot be compiled run as written, and this is reported once:
without a compiler for inductor, with a torch that fails, or if its cache cannot be written.
"""
from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Callable, Optional, Union

import torch
from torch import nn

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.layers import KVCache, LastRows, Rotary

log = logging.getLogger(__name__)

CHOICES = ("off", "auto")
#: Most pass shapes that one block is compiled for; torch's own limit is 8.
MOST_SHAPES = 64
#: Environment variable for the cache folder, by default below the user's; it keeps compiled code for the next start.
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


class OneLayer(KVCache):
    """One layer's part of a cache, in the form of a cache."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys[None], values[None]


def decoder_block(block: nn.Module, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, width: int,
                  bias: Optional[torch.Tensor], keys: torch.Tensor, values: torch.Tensor, start: int, stop: int,
                  last: Optional[int], last_bias: Optional[torch.Tensor]) -> torch.Tensor:
    """Runs a decoder block on tensors and numbers alone, which a compiler can compare with those of the last call."""
    wanted = None if last is None or last_bias is None else LastRows(last, last_bias)
    result: torch.Tensor = block(x, Rotary.of(cos, sin, width), bias, OneLayer(keys, values), 0, slice(start, stop), None,
                                 last=wanted)
    return result


def tower_block(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Runs a block of a tower."""
    result: torch.Tensor = block(x)
    return result


class CompiledBlocks:
    """Runner of compiled blocks; from the first failure on, it runs them as written."""

    def __init__(self, compiler: Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]) -> None:
        self._decoder, self._tower = compiler(decoder_block), compiler(tower_block)
        self.failed: Optional[str] = None

    def decoder(self, block: nn.Module, x: torch.Tensor, rotary: Rotary, bias: Optional[torch.Tensor], cache: KVCache,
                layer: int, write_at: slice, last: Optional[LastRows]) -> torch.Tensor:
        """Runs one block of the decoder on its layer of the cache."""
        return self._run(self._decoder, decoder_block, block, x, rotary.cos, rotary.sin, rotary.width, bias,
                         cache.keys[layer], cache.values[layer], write_at.start, write_at.stop,
                         None if last is None else last.count, None if last is None else last.bias)

    def tower(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Runs one block of a tower."""
        return self._run(self._tower, tower_block, block, x)

    def _run(self, compiled: Callable[..., torch.Tensor], written: Callable[..., torch.Tensor], *arguments: object
             ) -> torch.Tensor:
        if self.failed is None:
            try:
                return compiled(*arguments)
            except (MemoryError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - a compiler, its driver or its cache may raise anything
                self.failed = _first_line(error)
                log.warning("torch.compile failed (%s); the model runs as written, which is slower and gives the same",
                            self.failed)
        return written(*arguments)


def choose_compiled(choice: str, cache_folder: Union[str, Path, None] = None) -> Optional[CompiledBlocks]:
    """Chooses whether blocks go through torch.compile.

    Args:
        choice: `off` or `auto`.
        cache_folder: Folder for compiled code; None for the usual one.

    Returns:
        None for `off`, and if this torch cannot compile.

    Raises:
        ConfigurationError: There is no such choice.
    """
    if choice not in CHOICES:
        raise ConfigurationError(f"compile is {choice!r}; use one of {', '.join(CHOICES)}")
    if choice == "off":
        return None
    try:
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor
    except Exception as error:  # noqa: BLE001 - a torch without them, or with a broken part
        log.warning("torch.compile is not to be had here (%s); the model runs as written", _first_line(error))
        return None
    dynamo.cache_size_limit = max(dynamo.cache_size_limit, MOST_SHAPES)
    dynamo.inline_inbuilt_nn_modules = True     # parameters become inputs, so that layers share what is compiled
    inductor.fx_graph_cache = True
    os.environ[CACHE_VARIABLE] = str(usable_folder(cache_folder))
    return CompiledBlocks(lambda function: torch.compile(function, dynamic=False))


def usable_folder(folder: Union[str, Path, None] = None) -> Path:
    """Finds the folder for compiled code.

    Args:
        folder: The wanted folder; None for the environment's or the user's.

    Returns:
        That folder, or a temporary one if it cannot be written, which is reported once.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybridvla" / "compiled"
    wanted = Path(folder or os.environ.get(CACHE_VARIABLE) or default)
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        log.warning("%s cannot be written (%s); what is compiled now is compiled anew at the next start", wanted, error)
        return Path(tempfile.mkdtemp(prefix="hybridvla-compiled-"))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
