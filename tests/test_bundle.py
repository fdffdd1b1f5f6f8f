"""A bundle opens to what was put in, whatever the size and layout of its arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from parties.exchange import Array, Trained, Weights
from simulations.engines.bundle import GRAIN, LARGE, Bundle

NUMBERS = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_])


@given(
    st.lists(NUMBERS.flatmap(lambda t: arrays(t, array_shapes(min_dims=0, min_side=0))), max_size=9)
)
def test_arrays_come_back_to_the_bit_and_cannot_be_written_to(sent: list[Array]) -> None:
    bundle = Bundle.of({"arrays": sent, "count": len(sent)})
    back = bundle.open()
    assert back["count"] == len(sent)
    for one, other in zip(sent, back["arrays"], strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()
        assert not other.flags.writeable
    assert bundle.small.nbytes % GRAIN == 0
    assert bundle.others in ((), (None,))


@pytest.mark.parametrize("count", [LARGE // 4 - 1, LARGE // 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_stay_by_themselves_beside_small_ones(count: int, order: str) -> None:
    sent = np.arange(6, dtype=np.float32), np.arange(count, dtype=np.float32)
    turned = np.asarray(np.arange(6.0).reshape(2, 3), order=order)  # type: ignore[call-overload]
    many = turned, *sent, turned[:, ::2], sent[1]
    bundle = Bundle.of(many)
    assert sum(one is not None for one in bundle.others) == (4 * count >= LARGE)
    for one, other in zip(many, bundle.open(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert not other.flags.writeable
        assert other.ctypes.data % 4 == 0


def test_what_is_the_same_array_stays_the_same() -> None:
    array = np.ones(3)
    one, other, apart = Bundle.of((array, array, array.copy())).open()
    assert one is other
    assert one is not apart


def test_an_answer_comes_back_as_it_was() -> None:
    weights = Weights({"w": np.ones((2, 3), np.float32), "n": np.array(7)}, 5)
    answer = Trained(5, (0.5,), weights, np.array([1.0, 0, 2, 3]), "measured")
    back = Bundle.of([answer]).open()[0]
    assert isinstance(back, Trained)
    assert back.weights is not None
    assert (back.examples, back.losses, back.known) == (5, (0.5,), "measured")
    assert back.weights.arrays["n"] == 7
    np.testing.assert_array_equal(back.spent, answer.spent)
    np.testing.assert_array_equal(back.weights.arrays["w"], weights.arrays["w"])
