"""Tasks that take turns: each runs until it needs a training, then all trainings are one batch.

Tasks are greenlets of one thread: whoever asks for a fit waits in the middle of its work, so that a
firm's code need not know that it has company.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, final

import torch
from greenlet import getcurrent, greenlet

from parties.batched import fit_together
from parties.energy import away, own_seconds
from parties.exchange import FedpactError
from parties.fitting import Fit, Fitted, fit_each, fitter

T = TypeVar("T")
Fitter = Callable[[Sequence[Fit]], list[Fitted]]


@final
@dataclass(frozen=True)
class Done:
    """A fit that is done, and its share of what the batch took: CPU and wall seconds."""

    fitted: Fitted
    cpu: float
    wall: float

    def copy(self) -> Done:
        """With arrays of its own."""
        arrays, losses = self.fitted
        return Done(({k: v.copy() for k, v in arrays.items()}, losses), self.cpu, self.wall)

    @property
    def bytes(self) -> int:
        """What keeping it takes, about."""
        arrays, losses = self.fitted
        return sum(a.nbytes + 200 for a in arrays.values()) + 32 * len(losses) + 500


@final
class Remembered:
    """The fits that were done or asked for last, as many as there is room for.

    Args:
        room_mb: what they may take together.
    """

    def __init__(self, room_mb: float = 256.0) -> None:
        if not room_mb >= 0:
            raise FedpactError(
                f"room_mb is {room_mb!r}; legal is a number >= 0. Write 0 to remember nothing."
            )
        self._room, self._taken = int(room_mb * 2**20), 0
        self._kept: OrderedDict[str, Done] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Done | None:
        """The fit of this `Fit.key`, if it is still known."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, done: Done) -> None:
        """Remember it if it fits at all, and forget the oldest where there is no room for both."""
        if key in self._kept or done.bytes > self._room:
            return
        self._kept[key] = done
        self._taken += done.bytes
        while self._taken > self._room:
            self._taken -= self._kept.popitem(last=False)[1].bytes


def hold_together(
    tasks: Sequence[Callable[[], T]], fit: Fitter = fit_together, memory: Remembered | None = None
) -> list[T | Exception]:
    """Run all tasks, their trainings together; what each returns, or the exception that ended it.

    While one waits for a training the others run, up to theirs; when all wait, what they ask for is
    done in one call, of equal fits only one. A task may hold tasks of its own: theirs join.

    Args:
        fit: does the trainings; not used within another's task, where that one's does them.
        memory: fits that need not be done again.

    Raises:
        BaseException: a task raised one that is no Exception, such as KeyboardInterrupt.
    """
    if fitter.get() is not fit_each:
        fit = fitter.get()
    hub, ended, waiting = getcurrent(), dict[int, Any](), dict[int, tuple[greenlet, list[Fit]]]()
    # A task that holds tasks asks again, one by one, where a fit of theirs has failed.
    failed: dict[Fit, Exception] = {}

    def go_on(place: int, task: greenlet, *answer: Any) -> None:
        told = task.switch(*answer)
        if task.dead:
            ended[place] = told
        else:
            waiting[place] = task, told

    try:
        for place, task in enumerate(tasks):
            started = greenlet(partial(_run, task, hub))
            started.gr_context = copy_context()
            go_on(place, started)
        while waiting:
            asked = sorted(waiting.items())
            done = iter(_do([one for _, (_, fits) in asked for one in fits], fit, memory, failed))
            for place, (suspended, fits) in asked:
                del waiting[place]
                go_on(place, suspended, [next(done) for _ in fits])
    finally:
        for suspended, _ in waiting.values():
            suspended.throw()
    return [ended[place] for place in range(len(tasks))]


def all_together(
    tasks: Sequence[Callable[[], T]], fit: Fitter = fit_together, memory: Remembered | None = None
) -> list[T]:
    """As `hold_together`, where each must come to an end; the first exception is raised."""
    answers = list[T]()
    for answer in hold_together(tasks, fit, memory):
        if isinstance(answer, Exception):
            raise answer
        answers.append(answer)
    return answers


def _run(task: Callable[[], T], hub: greenlet) -> T | Exception:
    """A task as a greenlet of the hub's."""
    fitter.set(partial(_ask, hub))
    try:
        return task()
    except Exception as fault:
        return fault


def _ask(hub: greenlet, fits: Sequence[Fit]) -> list[Fitted]:
    """Wait until the hub has done these."""
    # Grad and inference modes are the thread's: whoever waits in one leaves it to all others.
    if not fits or not torch.is_grad_enabled():
        return fit_each(fits)
    since = own_seconds()
    answers: list[Done | Exception] = hub.switch(list(fits))
    done = [answer for answer in answers if isinstance(answer, Done)]
    # Of the seconds that it waited, those of its own fits count as its own.
    now, gone = own_seconds(), away.get()
    cpu = now[0] - since[0] - sum(one.cpu for one in done)
    wall = now[1] - since[1] - sum(one.wall for one in done)
    away.set((gone[0] + cpu, gone[1] + wall))
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [one.fitted for one in done]


def _do(
    fits: Sequence[Fit], fit: Fitter, memory: Remembered | None, failed: dict[Fit, Exception]
) -> list[Done | Exception]:
    """Each fit's outcome; equal ones are done once, remembered and failed ones not again."""
    alike = Counter(map(_hint, fits))
    # A key reads all of a fit's weights: it is made only where something could come of it.
    seen: dict[int, str] = {}
    names: list[Hashable] = [
        one.key(seen) if memory is not None or alike[_hint(one)] > 1 else place
        for place, one in enumerate(fits)
    ]
    found: dict[Hashable, Done | Exception] = {}
    if memory is not None:
        known = {name: memory.get(str(name)) for name in names}
        found = {name: done for name, done in known.items() if done is not None}
    found |= {n: failed[one] for n, one in zip(names, fits, strict=True) if one in failed}
    new = {name: one for name, one in zip(names, fits, strict=True) if name not in found}
    found.update(zip(new, _tried(list(new.values()), fit), strict=True))
    for name, one in new.items():
        if isinstance(fault := found[name], Exception):
            failed[one] = fault
    told: list[Done | Exception] = []
    handed = set[Hashable]()
    for name in names:
        done = found[name]
        if isinstance(done, Done):
            if memory is not None:
                memory.put(str(name), done)
            # What a task is given, it may write in.
            if memory is not None or name in handed:
                done = done.copy()
        handed.add(name)
        told.append(done)
    return told


def _hint(fit: Fit) -> Hashable:
    """Alike for equal fits, and cheap."""
    return fit.draw, fit.shuffle, fit.passes, fit.features.shape, fit.proximal


def _tried(fits: list[Fit], fit: Fitter) -> list[Done | Exception]:
    """The outcomes of one call; where it fails, of a call a fit, so that only the guilty fails."""
    since = own_seconds()
    try:
        fitted = fit(fits) if fits else []
    except Exception as fault:
        if len(fits) == 1:
            return [fault]
        return [done for one in fits for done in _tried([one], fit)]
    cpu, wall = (now - then for now, then in zip(own_seconds(), since, strict=True))
    work = [
        len(losses) * len(one.targets) * sum(array.size for array in arrays.values())
        for one, (arrays, losses) in zip(fits, fitted, strict=True)
    ]
    shares = [part / max(sum(work), 1) for part in work]
    return [Done(one, cpu * share, wall * share) for one, share in zip(fitted, shares, strict=True)]
