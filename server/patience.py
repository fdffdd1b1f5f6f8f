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
@dataclass(frozen=True)
class Patience:
    """When a question is asked again of a firm that has not answered.

    A node that was killed with a question and started again does not get it a second time, and
    nobody is told; one that is busy answers the same question once, however often it is asked.

    Args:
        poll_s: between two looks for replies.
        first_s: until a question is asked for the second time; each further wait is twice as long.
        longest_s: but no longer than this.
        pause_s: after a reply that is an error (its node was lost), before it is asked again.
    """

    poll_s: float = 0.3
    first_s: float = 20.0
    longest_s: float = 160.0
    pause_s: float = 3.0

    def replies(
        self, grid: Grid, questions: Mapping[str, Callable[[], Message]], deadline: float
    ) -> dict[str, Message]:
        """The first reply of each firm that is no error; its last error, if there is none.

        Args:
            questions: firm -> makes the message anew.
            deadline: on the monotonic clock.
        """
        found: dict[str, Message] = {}
        failed: dict[str, Message] = {}
        asked: dict[str, str] = {}  # message id -> firm
        again = dict.fromkeys(questions, 0.0)
        waits = dict.fromkeys(questions, self.first_s)
        while len(found) < len(questions) and time.monotonic() < deadline:
            due = [n for n in questions if n not in found and time.monotonic() >= again[n]]
            if due:
                ids = list(grid.push_messages([questions[name]() for name in due]))
                for name, key in zip(due, ids, strict=False):
                    if name in failed or again[name]:
                        log.info("%s has not answered: it is asked again", name)
                    again[name] = time.monotonic() + waits[name]
                    waits[name] = min(2 * waits[name], self.longest_s)
                    if key:
                        asked[key] = name
            for reply in grid.pull_messages(list(asked)):
                name = asked.pop(reply.metadata.reply_to_message_id, "")
                if not name or name in found:
                    continue
                if reply.has_error():
                    log.warning("%s: %s", name, reply.error.reason or reply.error.code)
                    failed[name] = reply
                    again[name] = min(again[name], time.monotonic() + self.pause_s)
                else:
                    found[name] = reply
            if len(found) < len(questions):
                time.sleep(self.poll_s)
        return {**failed, **found}
