"""Asking firms that are far away: a node may die and come back while a question is open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from flwr.app import Message
from flwr.serverapp import Grid

log = logging.getLogger("fedpact")


@final
@dataclass
class _Open:
    """A question that a firm has not answered yet."""

    make: Callable[[], Message]
    node: int
    again: float = 0.0  # when it is asked next, on the monotonic clock
    wait: float = 0.0
    lost: bool = False  # its node was, with the question
    asked: int = 0


@final
@dataclass(frozen=True)
class Patience:
    """When a question is asked again of a firm that has not answered.

    A node that dies takes its question with it: Flower says so about a minute later, and the
    question is asked again once the node is back. Should a question be lost without a word, it is
    asked again after a long while, or sooner where half of the firms have answered. Whoever is
    merely busy gets it twice, and answers it once.

    Args:
        poll_s: between two looks for replies.
        first_s: until a question is asked for the second time; each further wait is twice as long.
        longest_s: but no longer than this.
        pause_s: between two looks whether a lost node is back.
    """

    poll_s: float = 0.3
    first_s: float = 300.0
    longest_s: float = 3600.0
    pause_s: float = 3.0

    def replies(
        self,
        grid: Grid,
        questions: Mapping[str, tuple[int, Callable[[], Message]]],
        deadline: float,
    ) -> dict[str, Message]:
        """The first reply of each firm that is no error; its last error, if there is none.

        Args:
            questions: firm -> its node, and what makes the message anew.
            deadline: on the monotonic clock.
        """
        found: dict[str, Message] = {}
        failed: dict[str, Message] = {}
        firms: dict[str, str] = {}  # message id -> firm
        waiting = {n: _Open(make, node, wait=self.first_s) for n, (node, make) in questions.items()}
        begun = time.monotonic()
        while waiting and time.monotonic() < deadline:
            due = self._due(grid, waiting)
            if due:
                ids = list(grid.push_messages([waiting[name].make() for name in due]))
                firms |= {key: name for name, key in zip(due, ids, strict=False) if key}
            for reply in grid.pull_messages(list(firms)):
                name = firms.pop(reply.metadata.reply_to_message_id, "")
                if name not in waiting:
                    continue
                if reply.has_error():
                    self._lost(name, waiting[name], reply)
                    failed[name] = reply
                else:
                    found[name] = reply
                    del waiting[name]
                    if 2 * len(found) >= len(questions):
                        self._soon(waiting, begun)
            if waiting:
                time.sleep(self.poll_s)
        return {**failed, **found}

    def _soon(self, waiting: Mapping[str, _Open], begun: float) -> None:
        """Ask the rest again after three times what the others took, for the first time."""
        now = time.monotonic()
        for question in waiting.values():
            if question.asked == 1 and not question.lost:
                question.again = min(question.again, now + 2 * (now - begun) + 15 * self.poll_s)

    def _due(self, grid: Grid, waiting: Mapping[str, _Open]) -> list[str]:
        """Firms that are to be asked now, or again."""
        now = time.monotonic()
        due = [name for name, question in waiting.items() if now >= question.again]
        if any(waiting[name].lost for name in due):
            online = set(grid.get_node_ids())
            for name in [n for n in due if waiting[n].lost and waiting[n].node not in online]:
                waiting[name].again = now + self.pause_s
                due.remove(name)
        for name in due:
            question = waiting[name]
            if question.asked:
                back = "is back" if question.lost else "has not answered"
                log.info("%s %s: it is asked again", name, back)
            question.again, question.lost = now + question.wait, False
            question.wait = min(2 * question.wait, self.longest_s)
            question.asked += 1
        return due

    def _lost(self, name: str, question: _Open, reply: Message) -> None:
        if not question.lost:
            log.warning("%s: %s", name, reply.error.reason or f"error {reply.error.code}")
        question.lost = True
        pause = min(self.pause_s * 2 ** max(question.asked - 2, 0), self.first_s)
        question.again = min(question.again, time.monotonic() + pause)
