"""Sessions side by side: each runs until it asks, then all questions are one message a firm.

A message to a real firm takes seconds, whatever it holds (a process is started for it), and
sessions of other contracts or seeds need nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from greenlet import getcurrent, greenlet

from parties.exchange import Request
from server.transport import Answers, Ask, Question, TooFewFirmsError

T = TypeVar("T")
AskAll = Callable[[Sequence[Question]], list[Answers | TooFewFirmsError]]


def hold_abreast(sessions: Mapping[str, Callable[[Ask], T]], ask_all: AskAll) -> dict[str, T]:
    """Hold sessions until each has ended; what they return.

    Args:
        sessions: by name; each is given its way to ask.
        ask_all: asks several questions at once.

    Raises:
        Exception: the first that a session raised; the others end where they are.
    """
    hub, ended = getcurrent(), dict[str, T]()
    waiting = dict[str, tuple[greenlet, Question]]()

    def go_on(name: str, session: greenlet, *answer: object) -> None:
        told = session.switch(*answer)
        if session.dead:
            ended[name] = told
        else:
            waiting[name] = session, told

    try:
        for name, session in sessions.items():
            go_on(name, greenlet(session, hub), partial(_ask, hub, name))
        while waiting:
            asked = list(waiting.items())
            told = ask_all([question for _, (_, question) in asked])
            for (name, (session, _)), answers in zip(asked, told, strict=True):
                del waiting[name]
                go_on(name, session, answers)
    finally:
        for session, _ in waiting.values():
            session.throw()
    return {name: ended[name] for name in sessions}


def _ask(
    hub: greenlet, session: str, requests: Mapping[str, Request], minimum: int | None = None
) -> Answers:
    """Wait until the hub has asked."""
    told: Answers | TooFewFirmsError = hub.switch(Question(requests, minimum, session))
    if isinstance(told, TooFewFirmsError):
        raise told
    return told
