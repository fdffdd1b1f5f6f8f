"""Tasks in lockstep: their trainings are one call, and they themselves notice nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from parties.backbones.mlp import Mlp
from parties.energy.watts import Watts
from parties.exchange import FedpactError
from parties.fitting import Fit, Fitted, fit_each, fit_one, fitter
from simulations.engines.lockstep import Remembered, hold_together
from tests.test_batched import check_alike, check_same, made

SPOILT = "an example that cannot be"


def trained(fit: Fit) -> Fitted:
    return fitter.get()([fit])[0]


class Fits:
    """Fits one by one, and notes how many were asked for at a time; some it cannot do."""

    def __init__(self, spoilt: Sequence[Fit] = ()) -> None:
        self.calls: list[int] = []
        self.spoilt = {fit.key({}) for fit in spoilt}

    def __call__(self, fits: Sequence[Fit]) -> list[Fitted]:
        self.calls.append(len(fits))
        if any(fit.key({}) in self.spoilt for fit in fits):
            raise FedpactError(SPOILT)
        return fit_each(fits)


def asking(*fits: Fit) -> Callable[[], list[Fitted]]:
    return lambda: [trained(fit) for fit in fits]


A, B, C, D = (made(6, seed, epochs=1) for seed in range(4))


def test_tasks_get_what_they_would_get_alone_in_one_call_a_turn() -> None:
    fit = Fits()
    found = hold_together([asking(A, B), asking(C), asking(), asking(D, C, B)], fit)
    assert fit.calls == [3, 2, 1]
    for told, fits in zip(found, ([A, B], [C], [], [D, C, B]), strict=True):
        assert isinstance(told, list)
        for fitted, one in zip(told, fits, strict=True):
            check_same(fitted, fit_one(one))


def test_by_default_trainings_are_batched() -> None:
    fits = [made(20, seed) for seed in range(5)]
    found = hold_together([partial(trained, fit) for fit in fits])
    fitted = [told for told in found if not isinstance(told, Exception)]
    check_alike(fitted, fit_each(fits))
    assert any(told[1] != fit_one(fit)[1] for told, fit in zip(fitted, fits, strict=True))


def test_equal_fits_are_done_once_and_nobody_shares_an_array() -> None:
    fit = Fits()
    again = replace(A, features=A.features.copy())
    one, other, _ = hold_together([asking(A), asking(again), asking(B)], fit)
    assert fit.calls == [2]
    assert isinstance(one, list)
    assert isinstance(other, list)
    check_same(one[0], other[0])
    one[0][0]["0.weight"][:] = 0
    check_same(other[0], fit_one(A))


def test_tasks_of_a_task_join_the_others() -> None:
    fit = Fits()
    inner = Fits()

    def session() -> list[list[Fitted] | Exception]:
        trained(A)
        return hold_together([asking(B), asking(C)], inner)

    found = hold_together([session, asking(A, D), session], fit)
    assert fit.calls == [1, 3]
    assert not inner.calls
    for told in (found[0], found[2]):
        assert isinstance(told, list)
        for one, fitted in zip((B, C), told, strict=True):
            assert isinstance(fitted, list)
            check_same(fitted[0], fit_one(one))


def test_an_exception_ends_its_own_task_and_is_told_in_its_place() -> None:
    def broken() -> list[Fitted]:
        trained(B)
        raise ValueError("mine")

    first, fault, last = hold_together([asking(A), broken, asking(C, D)], Fits())
    assert isinstance(fault, ValueError)
    for told in (first, last):
        assert isinstance(told, list)


@pytest.mark.parametrize("nested", [False, True])
def test_of_a_batch_that_fails_only_the_guilty_task_fails(nested: bool) -> None:
    fit = Fits(spoilt=[B])
    tasks = [asking(A), asking(B, C), asking(D)]

    def held() -> list[list[Fitted] | Exception]:
        return hold_together(tasks, fit)

    (found,) = hold_together([held], fit) if nested else [held()]
    assert isinstance(found, list)
    first, fault, last = found
    assert isinstance(fault, FedpactError)
    assert str(fault) == SPOILT
    for told, one in ((first, A), (last, D)):
        assert isinstance(told, list)
        check_same(told[0], fit_one(one))


def test_a_task_may_go_on_after_a_fit_that_failed() -> None:
    def patient() -> Fitted:
        try:
            return trained(B)
        except FedpactError:
            return trained(A)

    (told,) = hold_together([patient], Fits(spoilt=[B]))
    assert not isinstance(told, Exception)
    check_same(told, fit_one(A))


@pytest.mark.parametrize("where", ["task", "fit", "nested"])
def test_an_interrupt_goes_through_at_once_and_everybody_puts_his_things_away(where: str) -> None:
    tidied = []

    def tidy(name: str) -> None:
        try:
            trained(A)
            trained(B)
        finally:
            tidied.append(name)

    def interrupted() -> None:
        trained(A)
        raise KeyboardInterrupt

    def fit(fits: Sequence[Fit]) -> list[Fitted]:
        if where == "fit" and B.key({}) in {one.key({}) for one in fits}:
            raise KeyboardInterrupt
        return fit_each(fits)

    def inner() -> None:
        hold_together([partial(tidy, "inner"), interrupted])

    middle = {"task": interrupted, "fit": partial(tidy, "middle"), "nested": inner}[where]
    with pytest.raises(KeyboardInterrupt):
        hold_together([partial(tidy, "first"), middle, partial(tidy, "last")], fit)
    others = {"task": [], "fit": ["middle"], "nested": ["inner"]}[where]
    assert sorted(tidied) == sorted(["first", "last", *others])
    assert fitter.get() is fit_each


def test_a_context_variable_is_each_tasks_own() -> None:
    told: ContextVar[str] = ContextVar("told")
    told.set("outside")

    def note(name: str) -> tuple[str, str]:
        before = told.get()
        told.set(name)
        trained(A)
        return before, told.get()

    found = hold_together([partial(note, "first"), partial(note, "second")], Fits())
    assert found == [("outside", "first"), ("outside", "second")]
    assert told.get() == "outside"


def test_nobody_waits_in_a_mode_of_torch_that_the_others_would_get() -> None:
    fit = Fits()
    modes = []

    def without_gradients() -> None:
        with torch.no_grad():
            trained(A)
            modes.append(torch.is_grad_enabled())

    def plain() -> Fitted:
        modes.append(torch.is_grad_enabled())
        return trained(B)

    hold_together([without_gradients, plain], fit)
    assert modes == [False, True]
    assert fit.calls == [1]


def test_each_firm_is_charged_its_own_seconds_and_its_share_of_a_batch() -> None:
    """Or else each of a hundred would pay for all."""

    def slow(fits: Sequence[Fit]) -> list[Fitted]:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass
        return fit_each(fits)

    def charged(fit: Fit, own: float) -> float:
        read = Watts().start(torch.device("cpu"))
        end = time.thread_time() + own
        while time.thread_time() < end:
            pass
        trained(fit)
        return read().cpu_seconds

    large = made(18, 9, epochs=1)
    started = time.thread_time()
    found = hold_together([partial(charged, A, 0.0), partial(charged, large, 0.1)], slow)
    whole = time.thread_time() - started
    assert found == [pytest.approx(0.05, abs=0.03), pytest.approx(0.25, abs=0.05)]
    assert sum(v for v in found if isinstance(v, float)) <= whole


def test_a_fit_that_is_remembered_is_not_done_again_and_costs_what_it_cost() -> None:
    fit, memory = Fits(), Remembered()
    spent = []

    def charged() -> Fitted:
        read = Watts().start(torch.device("cpu"))
        fitted = trained(replace(A, epochs=40))
        spent.append(read().cpu_seconds)
        return fitted

    (first,) = hold_together([charged], fit, memory)
    assert not isinstance(first, Exception)
    kept = {name: array.copy() for name, array in first[0].items()}
    first[0]["0.weight"][:] = 0  # the task's own
    (second,) = hold_together([charged], fit, memory)
    assert not isinstance(second, Exception)
    check_same(second, (kept, first[1]))
    assert fit.calls == [1]
    assert spent[1] == pytest.approx(spent[0], rel=0.5)


def test_memory_is_bounded_and_keeps_what_was_asked_for_last() -> None:
    fits = [made(6, seed, epochs=1) for seed in range(8)]
    fit = Fits()
    # A fit takes about 1.5 kB.
    memory = Remembered(room_mb=5 / 1024)
    for one in (*fits[:3], fits[0], *fits[3:]):
        hold_together([asking(one)], fit, memory)
        if one is fits[3]:
            assert memory.get(fits[0].key({})) is not None
            assert memory.get(fits[1].key({})) is None
    assert len(fit.calls) == 8
    assert 1 <= len(memory) <= 4


def test_a_fit_larger_than_the_memory_takes_no_others_place() -> None:
    memory = Remembered(room_mb=5 / 1024)
    hold_together([asking(A)], Fits(), memory)
    hold_together([asking(made(6, backbone=Mlp((200,)), epochs=1))], Fits(), memory)
    assert len(memory) == 1
    assert memory.get(A.key({})) is not None


def test_a_memory_without_room_keeps_nothing() -> None:
    memory = Remembered(0)
    hold_together([asking(A)], Fits(), memory)
    assert len(memory) == 0
    with pytest.raises(FedpactError, match="room_mb is -1; legal is a number >= 0"):
        Remembered(-1)


def test_fits_ended_by_different_starts_are_told_apart() -> None:
    fit = Fits()
    start = {k: np.asarray(v) for k, v in fit_one(A)[0].items()}
    hold_together([asking(A), asking(replace(A, start=start))], fit)
    assert fit.calls == [2]
