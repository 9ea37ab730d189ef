"""A fake GPU: tensors without numbers on a device that torch itself provides, with gradients and autocast.

A CPU build of torch cannot differentiate fake tensors on `cuda`. Its device for backends written in Python can, and it refuses
what CUDA refuses: operations over two devices, and products of two types. Registering it changes torch permanently, so only a
process of its own does it.
"""
from __future__ import annotations

import contextlib
from unittest import mock

import torch
import torch.utils.backend_registration as registration
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

NAME = "fakegpu"
#: Whether torch has such a device; torch 2.4 has none.
POSSIBLE = hasattr(registration, "_setup_privateuseone_for_python_backend")
#: What CUDA's autocast computes in the lower type, in float32, and in the widest input type, of the operations of training steps.
LOWER = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv2d", "einsum", "scaled_dot_product_attention")
WIDE = ("exp", "log", "rsqrt", "reciprocal", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "layer_norm", "group_norm",
        "smooth_l1_loss", "mse_loss", "l1_loss", "nll_loss", "cross_entropy_loss", "binary_cross_entropy_with_logits",
        "logsumexp", "cumsum", "sum", "sum.dim_IntList", "prod", "softmax.int", "log_softmax.int")
WIDEST = ("addcmul", "addcdiv", "grid_sampler", "index_put", "scatter_add", "cat", "stack")
#: Operations whose inputs must share one type; fake tensors do not check this.
PRODUCTS = tuple(f"aten::{name}" for name in ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward"))
_LIBRARIES = []


def register():
    """Registers the device, with the rules of CUDA's autocast."""
    registration._setup_privateuseone_for_python_backend(NAME)
    getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    others, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, dtype in ((LOWER, lambda found: torch.bfloat16), (WIDE, lambda found: torch.float32), (WIDEST, _widest)):
        for name in names:
            packet, _, overload = name.partition(".")
            call = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(name, _cast(call, dtype), "AutocastPrivateUse1")
    _LIBRARIES[:] = others, library      # a library that is garbage-collected undoes its rules


def _cast(call, dtype_of):
    def under_autocast(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            dtype = dtype_of([t.dtype for t in tree_flatten((args, kwargs))[0] if _floating(t)])
            args, kwargs = tree_map(lambda t: t.to(dtype) if _floating(t) else t, (args, kwargs))
            return call(*args, **kwargs)
    return under_autocast


def _floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _widest(dtypes):
    widest = dtypes[0] if dtypes else torch.float32
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


class FakeGpu(TorchDispatchMode):
    """Mode that answers 1 or True when the device is asked for a number, and notes what makes the host wait for the device.

    Attributes:
        waits: Names of the operations that waited.
    """

    def __init__(self):
        super().__init__()
        self.fake, self.waits, self.asking = FakeTensorMode(allow_non_fake_inputs=True), [], False

    @contextlib.contextmanager
    def on(self):
        """Make everything within the context fake."""
        with self.fake, self, _Host(), mock.patch.object(FakeTensor, "tolist", self._tolist()):
            yield self

    def wait(self, name):
        """Note an operation that waited, by its name."""
        if not self.asking:
            self.waits.append(name)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        args, kwargs = tree_map(self._faked, (args, kwargs or {}))
        if "_local_scalar_dense" in name:
            if args[0].device.type == NAME:
                self.wait("a number")
            return True if args[0].dtype == torch.bool else 1.0
        types = {t.dtype for t in tree_flatten((args, kwargs))[0] if _floating(t)}
        if name in PRODUCTS and len(types) > 1:
            raise RuntimeError(f"{name}: expected all tensors to have the same dtype, but found {types}")
        here = {t.device.type for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)}
        result = func(*args, **kwargs)
        there = {t.device.type for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor)}
        # A scalar on the host may be combined with tensors on the device: it travels with the command.
        numbers = {t.device.type for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor) and not t.dim()}
        mixed = here | there if "copy" in name else here - (numbers & {"cpu"}) | there
        if len(mixed) > 1 and not kwargs.get("non_blocking"):
            self.wait(name)
        return result

    def _tolist(self):
        """Return a `tolist` that counts as one transfer, although the fake one reads number after number."""
        asked = FakeTensor.tolist

        def tolist(tensor):
            self.wait("numbers")
            self.asking = True
            try:
                return asked(tensor)
            finally:
                self.asking = False
        return tolist

    def _faked(self, value):
        real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
        return self.fake.from_tensor(value) if real else value


class _Host(TorchFunctionMode):
    """Mode for what torch hides from the other modes: host numbers that become a tensor on the device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def real(call):
    """Wrap a call so that it works on tensors with numbers, whatever is fake around it."""
    def outside(*args, **kwargs):
        with _disable_current_modes():
            return call(*args, **kwargs)
    return outside


def move(module):
    """Puts a module's parameters and buffers onto the device, as `Module.to` would; within `FakeGpu.on`."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = torch.nn.Parameter(_empty(parameter), requires_grad=parameter.requires_grad)
        part._buffers.update({name: _empty(buffer) for name, buffer in part._buffers.items() if buffer is not None})
    return module


def _empty(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=f"{NAME}:0")
