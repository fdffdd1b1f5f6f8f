"""Examples that stay on the GPU: they travel there once, and not for every round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final
from weakref import ref

import torch
from torch import Tensor

from parties.exchange import Array

SHARE = 0.25  # of the memory that a process finds free; several may share a GPU


def on_device(array: Array, device: torch.device) -> Tensor:
    """An array as a tensor where it is needed: on the CPU itself, on a GPU a copy that stays.

    Nobody may write in either from now on. (What a firm trains on never changes.)
    """
    if device.type == "cpu":
        return torch.from_numpy(array)
    if device not in _RESIDENT:
        _RESIDENT[device] = Resident(device)
    return _RESIDENT[device].get(array)


def on_host(count: int, device: torch.device) -> Tensor:
    """Room on the CPU for so many float32 on their way to a device: (count,), not filled.

    References:
        PyTorch, CUDA semantics: "Use pinned memory buffers".
    """
    return torch.empty(count, pin_memory=device.type == "cuda")


def fetched(tensor: Tensor) -> Tensor:
    """A tensor (count,) of a device on the CPU, for reading only: it may be the tensor itself."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    return on_host(len(tensor), tensor.device).copy_(tensor)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; to a GPU it goes while the CPU does something else.

    References:
        PyTorch, CUDA semantics: "Use pinned memory buffers".
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def forget_all() -> None:
    """Make room: drop all copies, and give back what torch holds ready."""
    for resident in _RESIDENT.values():
        resident.clear()
    torch.cuda.empty_cache()  # does nothing where no GPU was used


def free_bytes(device: torch.device) -> int:
    """What this process could still take of a GPU: what is free, and what torch holds ready."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@final
class Resident:
    """Copies of arrays on a device, each as long as its array lives.

    An array is known by what it is, not by what it holds: to read it takes longer than to send it.
    What finds no room is sent each time. (To drop the longest unused would help nobody: firms train
    in the same order every round, and each would be dropped just before its turn.)

    Args:
        device: where.
        free: how many bytes are free there. The copies take at most `SHARE` of what would be free
            without them.
    """

    def __init__(
        self, device: torch.device, free: Callable[[torch.device], int] = free_bytes
    ) -> None:
        self._device, self._free = device, free
        self._copies: dict[int, tuple[ref[Array], Tensor]] = {}
        self.taken = 0

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, array: Array) -> Tensor:
        """The copy of an array, made now if it is not there."""
        key = id(array)
        if key in self._copies:
            return self._copies[key][1]
        with torch.inference_mode(False):  # else nobody could train on it later
            # Not by pinned memory: that is a second copy, which only pays if it is used again.
            copy = torch.from_numpy(array).to(self._device)
        free = self._free(self._device)
        if self.taken + copy.nbytes <= SHARE * (free + self.taken + copy.nbytes):
            # An array that goes takes its copy with it, before another can have its number.
            self._copies[key] = ref(array, partial(self._drop, key)), copy
            self.taken += copy.nbytes
        return copy

    def clear(self) -> None:
        """Drop all copies."""
        self._copies.clear()
        self.taken = 0

    def _drop(self, key: int, _: object) -> None:
        if key in self._copies:
            self.taken -= self._copies.pop(key)[1].nbytes


_RESIDENT: dict[torch.device, Resident] = {}  # of this process
