"""Stand-ins for a GPU: a recorder that repeats operations on fixed tensors as a CUDA graph does, and a guard that rejects
everything that would make a GPU wait for the host."""
from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default):
            raise AssertionError("a recorded stage asked for a number")
        self.calls.append((func, args, kwargs, result))
        return result


class RecordedBackend:
    """A backend with the contract of `CudaBackend`: after capture only the recorded operations run, on the same addresses.

    Storage that an operation allocated is kept; a replay writes its new result into it.
    """

    captures = 0

    def capture(self, call):
        call()
        self.captures += 1
        recorder = _Recorder()
        with recorder:
            outputs = call()

        def replay():
            for func, args, kwargs, result in recorder.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0]):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)
        return replay, outputs


class NoWaiting(TorchDispatchMode):
    """A mode that fails when anything moves data between devices or reads a number; it counts operations on the fake GPU."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name()
        assert "_local_scalar_dense" not in name, f"{name} reads a number from the device"
        inputs = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        result = func(*args, **kwargs)
        outputs = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor)]
        devices = {t.device.type for t in inputs + outputs if t.dim() or t.device.type == "cuda"}
        assert len(devices) <= 1, f"{name} moves data between {sorted(devices)}"
        self.operations += "cuda" in devices
        return result


class PlainIndexing(TorchFunctionMode):
    """Indexing by operators: Python's own indexing asks for a real GPU even when the tensors are fake."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            return _pick(*args)
        if func is torch.Tensor.__setitem__:
            return torch.ops.aten.copy_.default(_pick(*args[:2]), args[2])
        if func is torch.Tensor.__invert__:
            return torch.logical_not(*args)
        return func(*args, **(kwargs or {}))


def _pick(tensor, index):
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [i for i in index if not isinstance(i, torch.Tensor)]:
        at = [isinstance(i, type(Ellipsis)) for i in index].index(True)
        given = sum(i is not None for i in index) - 1
        index = index[:at] + (slice(None),) * (tensor.dim() - given) + index[at + 1:]
    place = 0
    for part in index:
        if part is None:
            tensor = tensor.unsqueeze(place)
        elif isinstance(part, int):
            tensor = tensor.select(place, part)
            continue
        elif isinstance(part, slice):
            tensor = torch.ops.aten.slice.Tensor(tensor, place, part.start, part.stop)
        else:
            assert place == 0 and len(index) == 1
            return torch.ops.aten.index.Tensor(tensor, [part])
        place += 1
    return tensor
