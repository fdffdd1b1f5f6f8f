"""A firm's own policy: what its desk refuses, whatever a contract says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from parties import privacy
from parties.exchange import Answer, Enrol, FedpactError, Request, Reveal, Settled
from parties.firm import SHAREABLE, TELLS


@final
@dataclass(frozen=True)
class Policy:
    """What a firm refuses, whatever it is asked. Reasons name a field, and no value of it.

    Args:
        contracts: names of those that it takes part in; None: all that the study holds.
        shares: what may ever leave ("models", "predictions").
        tells: of what clients earned: "clients" (each), "sums" (means and variances only).
        validation_outcomes: true classes of validation clients may be told to the operator.
        most_rounds: it refuses contracts with more; None: any number.
        most_bytes: the largest message that may leave; None: any size.
        most_epsilon: it refuses contracts under which models or predictions leave with less noise
            than that of this epsilon (`parties.privacy`); None: any noise, and none.
        masks_only: its models leave under masks only (`secure: true` in the contract's terms).
    """

    contracts: tuple[str, ...] | None = None
    shares: tuple[str, ...] = SHAREABLE
    tells: str = "clients"
    validation_outcomes: bool = True
    most_rounds: int | None = None
    most_bytes: int | None = None
    most_epsilon: float | None = None
    masks_only: bool = False

    def __post_init__(self) -> None:
        for name in ("contracts", "shares"):
            value = getattr(self, name)
            if name == "contracts" and value is None:
                continue
            words = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
            if not words:
                raise _bad(name, value, "a list of names", f"Write a list: {name}: [...]")
            object.__setattr__(self, name, tuple(value))
        unknown = sorted(set(self.shares) - set(SHAREABLE))
        if unknown:
            raise _bad("shares", unknown, f"some of {list(SHAREABLE)}", "Write [] to share nothing")
        if self.tells not in TELLS:
            raise _bad("tells", self.tells, " and ".join(TELLS), "Write tells: sums to tell less")
        flags = {"validation_outcomes": "false to tell none", "masks_only": "true to hide models"}
        for name, what in flags.items():
            if not isinstance(getattr(self, name), bool):
                raise _bad(name, getattr(self, name), "true and false", f"Write {what}")
        for name, least in (("most_rounds", 0), ("most_bytes", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise _bad(name, value, f"a whole number >= {least}", "Write null for any number")
        most = self.most_epsilon
        if most is not None and not (type(most) in (int, float) and 0 < most < math.inf):
            raise _bad("most_epsilon", most, "a number > 0", "Write null for any noise, and none")

    def objection(self, request: Request) -> str:
        """Why the firm will not answer, or ""."""
        if isinstance(request, Enrol):
            return ""
        terms = request.terms
        if self.contracts is not None and terms.contract not in self.contracts:
            return f"policy.contracts does not hold {terms.contract}"
        for kind in SHAREABLE:
            if getattr(terms, kind) and kind not in self.shares:
                return f"policy.shares does not hold {kind}, and {terms.contract} shares them"
        if self.most_rounds is not None and terms.rounds > self.most_rounds:
            return f"policy.most_rounds is below the rounds of {terms.contract}"
        if self.masks_only and terms.models and not terms.secure:
            return f"policy.masks_only, and {terms.contract} lets models cross without masks"
        if privacy.objection(terms, self.most_epsilon):
            return f"policy.most_epsilon asks for more noise than {terms.contract} puts on"
        if isinstance(request, Reveal) and not self.validation_outcomes:
            return "policy.validation_outcomes keeps true classes at home"
        return ""

    def objection_to(self, answer: Answer, size: int) -> str:
        """Why an answer of so many bytes may not leave, or ""."""
        if self.most_bytes is not None and size > self.most_bytes:
            return "policy.most_bytes is below the size of the answer"
        if isinstance(answer, Settled) and answer.ids is not None and self.tells == "sums":
            return "policy.tells keeps what each client earned at home"
        return ""


def _bad(name: str, value: object, legal: str, what: str) -> FedpactError:
    return FedpactError(f"policy.{name} is {value!r}; legal: {legal}. {what}.")
