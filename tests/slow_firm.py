"""A firm that is too late where it is asked about seed 7 (for tests of bounded waits)."""

from __future__ import annotations

import time

from parties.exchange import Answer, Declaration, Request
from parties.memory import Memory


class SlowFirm:
    def __init__(self, name: str) -> None:
        self._name = name

    def answer(self, request: Request, memory: Memory) -> Answer:
        if request.seed == 7:
            time.sleep(5)
        return Declaration(self._name, 1, 0, 0, 0, {"w": (1,)}, ("w",), True)


def slow_firm(name: str) -> SlowFirm:
    return SlowFirm(name)
