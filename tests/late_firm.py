"""Firms that answer after a while: workers are done in another order in every round."""

from __future__ import annotations

import os
import random
import time

from parties.exchange import Answer, Request
from parties.firm import Firm
from parties.memory import Memory
from simulations.engines import apps

_rng = random.Random(os.getpid())  # of each worker its own


class LateFirm:
    def __init__(self, firm: Firm) -> None:
        self._firm = firm

    def answer(self, request: Request, memory: Memory) -> Answer:
        time.sleep(_rng.uniform(0, 0.05))
        return self._firm.answer(request, memory)


def late_firm(name: str, *arguments: str) -> LateFirm:
    return LateFirm(apps.firm(name, *arguments))
