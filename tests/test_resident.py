"""What stays on a device: made once, gone with its array, never more than its share.

The device is torch's "meta", which has shapes and no memory, or the CPU: what is decided is the
same on each.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from parties import resident
from parties.backbones.mlp import Mlp
from parties.exchange import Array
from parties.resident import SHARE, Resident, on_device, sent
from parties.training import Training, cross_entropy

META, CPU = torch.device("meta"), torch.device("cpu")


def rows(count: int) -> Array:
    """So many kB."""
    return np.arange(count * 256, dtype=np.float32)


def test_an_array_is_sent_once_and_stays_as_long_as_it_lives() -> None:
    kept = Resident(META, lambda _: 10**9)
    one, other = rows(1), rows(1)
    assert kept.get(one) is kept.get(one)
    assert kept.get(one) is not kept.get(other)  # equal, and another
    assert (len(kept), kept.taken) == (2, 2048)
    del one
    assert (len(kept), kept.taken) == (1, 1024)
    assert kept.get(other) is kept.get(other)
    kept.clear()
    del other
    assert (len(kept), kept.taken) == (0, 0)


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(0, 200))
def test_copies_take_no_more_than_a_share_of_what_would_be_free_without_them(
    sizes: list[int], total: int
) -> None:
    kept: Resident = Resident(META, lambda _: total * 1024 - kept.taken - coming)
    arrays, fewer = [rows(size) for size in sizes], 0
    for array in arrays:
        coming = array.nbytes
        before = kept.taken
        assert kept.get(array).shape == array.shape
        assert kept.taken <= SHARE * total * 1024
        # Whatever fits is kept.
        assert kept.taken > before or array.nbytes == 0 or (before + coming) > SHARE * total * 1024
        fewer += kept.taken == before
    assert len(kept) >= len(arrays) - fewer


def test_a_copy_holds_what_the_array_holds_and_can_be_trained_on_wherever_it_was_made() -> None:
    kept, array = Resident(CPU, lambda _: 10**9), rows(1)
    with torch.inference_mode():
        copy = kept.get(array)
    assert not copy.is_inference()
    np.testing.assert_array_equal(copy.numpy(), array)
    weight = torch.ones(256, requires_grad=True)
    (weight * copy).sum().backward()


def test_on_the_cpu_nothing_is_copied_or_kept() -> None:
    array = rows(1)
    assert np.shares_memory(on_device(array, CPU).numpy(), array)
    assert CPU not in resident._RESIDENT
    tensor = torch.ones(3)
    assert sent(tensor, CPU) is tensor


def test_what_is_dropped_to_make_room_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(resident._RESIDENT, META, Resident(META, lambda _: 10**9))
    array = rows(1)
    copy = on_device(array, META)
    assert on_device(array, META) is copy
    resident.forget_all()
    assert on_device(array, META) is not copy


def test_a_training_sends_its_examples_once_and_nothing_of_its_steps_lies_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to the first number that is asked of a device without memory: the loss of an epoch."""
    monkeypatch.setitem(resident._RESIDENT, META, Resident(META, lambda _: 10**9))
    monkeypatch.setattr(Training, "torch_device", META)
    features, labels = rows(1).reshape(64, 4), np.zeros(64, np.int64)
    seen = list[torch.Tensor]()

    def noting(module: nn.Module, *batch: torch.Tensor) -> torch.Tensor:
        seen.extend(batch)
        return cross_entropy(module, *batch)

    for _ in range(2):
        module = Mlp((3,)).build(4, 2, 0)
        with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
            Training(batch_size=32).fit(module, features, labels, 0, proximal=0.1, objective=noting)
    assert [tensor.device for tensor in seen] == [META] * 8  # two fits, two steps, two tensors
    assert len(resident._RESIDENT[META]) == 2
