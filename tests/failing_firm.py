"""A firm that fails where it is to train in the first round (for tests of failures in company)."""

from __future__ import annotations

from parties.exchange import Answer, Offer, Request
from parties.firm import Firm
from parties.memory import Memory
from simulations.engines import apps

FAILS = "hungary"


class FailingFirm:
    def __init__(self, firm: Firm) -> None:
        self._firm = firm

    def answer(self, request: Request, memory: Memory) -> Answer:
        answer = self._firm.answer(request, memory)
        if isinstance(request, Offer) and request.terms.models and self._firm.name == FAILS:
            raise ArithmeticError("after it has trained with the others")
        return answer


def failing_firm(name: str, *arguments: str) -> FailingFirm:
    return FailingFirm(apps.firm(name, *arguments))
