"""Firms in Ray's actors: one call an actor and question, whatever the number of its firms."""

from __future__ import annotations

import gc
import importlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import ray

from parties.exchange import Declaration, Request
from parties.memory import Memory
from simulations.engines import in_turn
from simulations.engines.bundle import Bundle
from simulations.engines.one_firm import OneFirm, Reply, Together, reply_of
from simulations.engines.placement import largest_first
from simulations.source import code_digest

AWAY_S = 120.0  # Ray takes a while to see that a machine is lost: until then, ask again
PAUSE_S = 0.5
SMALL = 1 << 16  # bytes: to store less costs more than to send it with every call


def start_workers(count: int, num_cpus: float, num_gpus: float) -> list[Any]:
    """Ray handles of `count` new workers with their CPU and GPU shares."""
    # An actor is a cache: after a crash it starts empty, and recomputes the same answers.
    kind: Any = ray.remote(
        num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=-1, max_task_retries=3
    )(Worker)
    return [kind.remote() for _ in range(count)]


@final
class Worker:
    """What one Ray actor does: answers for its firms."""

    def __init__(self) -> None:
        self._job, self._firms = "", dict[str, OneFirm]()
        self._maker, self._arguments = "", tuple[Any, ...]()
        self._together: Together = in_turn

    def code(self) -> str:
        """The sha256 of the code that it runs; tells by the way what a machine lacks."""
        _side_by_side(None)
        return code_digest()

    def answer(
        self,
        job: str,
        opened: Bundle | None,
        names: list[str],
        places: list[int],
        facts: bool,
        *questions: Bundle,
    ) -> Bundle | None:
        """The replies of these firms, a list of `Reply`; None: `opened` is needed.

        Args:
            job: names the job; a new one is opened with what is in `opened`.
            places: for each firm, which of `questions` is its own.
            facts: whether they are wanted of the answers.
        """
        if job != self._job:
            if opened is None:
                return None
            maker, arguments, batched, room_mb = opened.open()
            together = _side_by_side(room_mb) if batched else in_turn
            self._maker, self._arguments, self._together = maker, arguments, together
            self._firms, self._job = {}, job
            gc.unfreeze()
        requests: list[Request] = [question.open() for question in questions]
        before = len(self._firms)
        calls = [
            partial(self._firm(name).answer, requests[place])
            for name, place in zip(names, places, strict=True)
        ]
        told = Bundle.of([reply_of(answer, facts) for answer in self._together(calls)])
        if len(self._firms) > before:
            # They stay for the whole job: Python need not look in them again for what may go, which
            # takes as long as some rounds of small models.
            gc.freeze()
        return told

    def _firm(self, name: str) -> OneFirm:
        if name not in self._firms:
            module, maker = self._maker.split(":")
            firm = getattr(importlib.import_module(module), maker)(name, *self._arguments)
            self._firms[name] = OneFirm(name, firm.answer, Memory(), spared=True)
        return self._firms[name]


def _side_by_side(room_mb: float | None) -> Together:
    """Calls whose trainings are done together. (Who trains one by one need not import it.)"""
    from parties.batched import fit_together
    from simulations.engines.lockstep import all_together

    return partial(all_together, fit=partial(fit_together, room_mb=room_mb))


@final
@dataclass(frozen=True)
class _Call:
    """One call of a worker: of which firms, how it is made (given what opens the job, where the
    worker does not know it), and until when it is made again."""

    names: Sequence[str]
    send: Callable[[Any], Any]
    until: float

    def lost(self, why: str) -> dict[str, Reply]:
        return dict.fromkeys(self.names, Reply(None, lost=f"its worker failed: {why}"))


@final
class RayCrew:
    """Firms dealt out among Ray's actors (`simulations.engines.direct.Crew`).

    Args:
        actors: Ray handles of `Worker`.
        maker: what makes a firm, as "module:function"; it is given the firm's name and `arguments`.
        names: the firms; one belongs to one actor for the whole job, from the moment on when all
            have said how many examples they have.
        batched, room_mb: see `RayActors`.
    """

    def __init__(
        self,
        actors: Sequence[Any],
        maker: str,
        arguments: tuple[Any, ...],
        names: Sequence[str],
        batched: bool = False,
        room_mb: float | None = None,
    ) -> None:
        self._actors, self._job = list(actors), os.urandom(8).hex()
        self._opened = ray.put(Bundle.of((maker, arguments, batched, room_mb)))
        self._home = {name: i % len(actors) for i, name in enumerate(sorted(names))}
        self._asked = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._home))

    def ask(
        self, requests: Mapping[str, Request], wait_s: float, facts: bool
    ) -> Mapping[str, Reply]:
        """The replies; whoever has not answered after `wait_s` seconds is lost to this question."""
        deadline = time.monotonic() + wait_s
        stacks: dict[int, list[str]] = {}
        for name in sorted(requests):
            stacks.setdefault(self._home[name], []).append(name)
        stored: dict[int, Any] = {}
        asked: dict[Any, _Call] = {}
        for home, names in stacks.items():
            different = list({id(requests[name]): requests[name] for name in names}.values())
            order = {id(request): place for place, request in enumerate(different)}
            for request in different:
                if id(request) not in stored:
                    stored[id(request)] = _sendable(request)
            send = partial(
                self._send,
                home,
                names,
                [order[id(requests[name])] for name in names],
                facts,
                [stored[id(request)] for request in different],
            )
            asked[send(None)] = _Call(names, send, time.monotonic() + AWAY_S)
        late = Reply(None, lost=f"no answer within {wait_s:g} s")
        found = dict.fromkeys(requests, late)
        while asked:
            done, _ = ray.wait(
                list(asked), num_returns=1, timeout=max(deadline - time.monotonic(), 0)
            )
            if not done:
                break
            call = asked.pop(done[0])
            replies = _replies(done[0], call)
            if replies is None:
                asked[call.send(self._opened)] = call
            else:
                found.update(replies)
        if not self._asked:
            self._asked = True
            self._deal_out(found)
        return found

    def _send(
        self,
        home: int,
        names: Sequence[str],
        places: Sequence[int],
        facts: bool,
        questions: Sequence[Any],
        opened: Any,
    ) -> Any:
        """Call an actor."""
        answer = self._actors[home].answer
        return answer.remote(self._job, opened, names, places, facts, *questions)

    def _deal_out(self, replies: Mapping[str, Reply]) -> None:
        """Give the firms that have just enrolled to actors by their examples.

        Later none may move: it would forget which terms it accepted. A firm that moves now reads
        its data again.
        """
        told = {name: reply.answer for name, reply in replies.items()}
        sizes = {name: a.examples for name, a in told.items() if isinstance(a, Declaration)}
        if sizes.keys() == self._home.keys():
            self._home = largest_first(sizes, len(self._actors))


def _sendable(request: Request) -> Any:
    """A question as an argument of calls; a large one is stored once, however many are asked."""
    bundle = Bundle.of(request)
    return bundle if bundle.nbytes < SMALL else ray.put(bundle)


def _replies(future: Any, call: _Call) -> dict[str, Reply] | None:
    """What came of a call; None where it is to be made again, with what opens the job."""
    try:
        told = ray.get(future)
    except ray.exceptions.ActorUnavailableError as fault:
        if time.monotonic() < call.until:
            time.sleep(PAUSE_S)
            return None
        return call.lost(type(fault).__name__)
    except ray.exceptions.RayTaskError as fault:
        return call.lost(repr(fault.cause))
    except ray.exceptions.RayError as fault:
        return call.lost(type(fault).__name__)
    if told is None:  # the worker is asked for the first time, or was started again
        return None
    return dict(zip(call.names, told.open(), strict=True))
