"""Settings of the exact engine: what they build, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.exchange import FedpactError
from server.game import table as floats
from server.game.dominance import Reading
from server.game.settings import correlation, hypotheses, table
from server.game.sight import sights
from server.game.worlds import Setting, World, fraction
from tests.games import F

WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: correlation("4/5", "7/10", [(1, "3/4")]), "from 1/2 to 7/10"),
    (lambda: correlation("4/5", "7/10", [(1, "1/4")]), "independent errors write 14/25"),
    (lambda: correlation("6/5", "7/10", [(1, "1/2")]), "alpha is 6/5; legal is a probability"),
    (lambda: correlation("4/5", "x", [(1, "1/2")]), "beta is 'x'; legal is a finite number"),
    (lambda: correlation("4/5", "7/10", [("1/2", "14/25")]), "sum to 1/2"),
    (lambda: correlation("4/5", "7/10", []), "weights of the worlds"),
    (lambda: correlation("4/5", "7/10", [(1, "14/25")], gamma="3/2"), "gamma is 3/2"),
    (lambda: correlation("4/5", "7/10", [(1, "14/25")], R=(0, -1)), r"R\[1\] is -1"),
    (lambda: correlation("4/5", "7/10", [(1, "14/25")], C=(1,)), "C is .*two numbers"),
    (lambda: correlation(float("nan"), "7/10", [(1, "14/25")]), "alpha is nan"),
    (lambda: hypotheses("1/2", "1/2", "3/4", "1/2"), "lambda \\+ mu is 5/4"),
    (lambda: hypotheses("1/2", "1/2", "1/4", "1/2", 9), "samples is 9; legal are"),
    (lambda: hypotheses("1/2", "1/2", "1/4", "1/2", True), "samples is True"),
    (lambda: table([[[1, 2], [3, 4]]]), "1 classes"),
    (lambda: table([[[1, 2], [3]], [[1, 2], [3, 4]]]), "rows of shapes"),
    (lambda: table([[[".2", ".2"]], [[".2", ".2"]]]), "sums to 0.8"),
    (lambda: table([[[1, -2]], [[1, 2]]]), "least entry is -2"),
    (lambda: table([[[1]], [[1]]], {"loose": 1}), "coupling 'loose'; legal are measured"),
    (lambda: sights({"full_sharing": {}}), "no_sharing must be among them"),
    (lambda: sights({"no_sharing": {}, "x": {"firm1": ["s1"]}}), "firm1 sees .*legal is a list"),
    (lambda: sights({"no_sharing": {}, "x": ["s2"]}), "contract 'x' is"),
    (lambda: sights({"no_sharing": {"firm1": ["z2"]}}), "another meaning"),
    (lambda: Reading("papers", "interim"), "definition is 'papers'"),
    (lambda: fraction("1/0", "p"), "p is '1/0'"),
]


@pytest.mark.parametrize(("build", "message"), WRONG)
def test_what_is_wrong_is_said_with_what_is_legal(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        build()


def test_numbers_are_read_as_they_are_written() -> None:
    assert fraction(0.1, "x") == fraction("0.1", "x") == fraction("1/10", "x") == F(1, 10)


def test_worlds_of_weight_zero_are_left_out() -> None:
    setting = correlation("4/5", "7/10", [(1, "14/25"), (0, "7/10")])
    assert len(setting.worlds) == 1


COUNTS = st.lists(st.integers(0, 9), min_size=12, max_size=12).filter(any)


@given(counts=COUNTS)
def test_couplings_equal_those_in_floating_point(counts: list[int]) -> None:
    joint = np.array(counts, dtype=float).reshape(2, 2, 3)
    measured = joint / joint.sum()
    expected = {
        "measured": measured,
        "independent": floats.independent(measured),
        "strongest": floats.strongest(measured),
    }
    for name, array in expected.items():
        law = table(joint.astype(int).tolist(), {name: 1}).worlds[0].instance
        found = np.array(
            [[[float(law[t, x, y]) for y in range(3)] for x in range(2)] for t in range(2)]
        )
        np.testing.assert_allclose(found, array, atol=1e-12)


@given(counts=COUNTS)
def test_the_weakest_coupling_is_the_strongest_of_reversed_signals(counts: list[int]) -> None:
    joint = np.array(counts).reshape(2, 2, 3)
    weakest = table(joint.tolist(), {"weakest": 1}).worlds[0].instance
    turned = table(joint[:, :, ::-1].tolist(), {"strongest": 1}).worlds[0].instance
    assert all(weakest[t, x, y] == turned[t, x, 2 - y] for t, x, y in weakest)


@given(n=st.integers(0, 3))
def test_samples_are_distributions_with_one_class_for_both_firms(n: int) -> None:
    setting = hypotheses("1/3", "1/4", "1/8", "1/2", n)
    for world in setting.worlds:
        assert sum(world.history.values()) == 1
        for z1, z2, _ in world.history:
            assert isinstance(z1, tuple)
            assert isinstance(z2, tuple)
            assert [t for t, _ in z1] == [t for t, _ in z2]


def test_a_law_that_is_none_is_refused() -> None:
    half = Fraction(1, 2)
    with pytest.raises(FedpactError, match="sum to 1/2"):
        Setting((World(F(1), {(0, 0, 0): half}),), (F(0), F(1)), (F(0), F(1)), half)
