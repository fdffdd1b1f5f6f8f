"""A firm's decision about an offered model: twenty checks, and what they were held on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import final

from parties.exchange import FedpactError
from parties.reuse.bounded import exactly, read_json
from parties.reuse.checks import STATES, Value
from parties.reuse.texts import to_text

ALL = tuple(range(1, 21))
LATENCY = 13
FORMAT = 1
AGAIN = "Judge the artifact again."


@final
@dataclass(frozen=True)
class Check:
    """What one of the twenty checks said.

    Args:
        number, name, theme: which.
        status: pass, warn, block or skipped.
        value, limit: what was measured and what is legal: a number, a text, several by name, None.
        seconds: wall time.
        reason: what is wrong, what is legal, what to do; "" where it passed.
    """

    number: int
    name: str
    theme: str
    status: str
    value: Value
    limit: Value
    seconds: float
    reason: str

    def __post_init__(self) -> None:
        if self.number not in ALL or self.status not in STATES:
            raise FedpactError(
                f"check {self.number!r} is {self.status!r}; legal are 1 to 20 and "
                f"{', '.join(STATES)}. Judge the artifact again."
            )


@final
@dataclass(frozen=True)
class Adoption:
    """A firm's decision about an offered model, and why. It pins what was judged.

    Args:
        decision: "adopt" or "refuse".
        firm, model, digest, round, contract, parent: what was judged; None where it could not be
            read.
        blocking: "number name: reason" of each check that blocks.
        checks: all twenty.
    """

    decision: str
    firm: str | None
    model: str | None
    digest: str | None
    round: int | None
    contract: str | None
    parent: str | None
    blocking: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def adopted(self) -> bool:
        """Whether the firm takes it."""
        return self.decision == "adopt"

    def without_times(self) -> Adoption:
        """The same without what a clock said: equal for equal models, data and policies."""
        checks = (
            replace(c, seconds=0.0, value=None, reason="")
            if c.number == LATENCY
            else replace(c, seconds=0.0)
            for c in self.checks
        )
        blocking = (f"{LATENCY}" if b.startswith(f"{LATENCY} ") else b for b in self.blocking)
        return replace(self, checks=tuple(checks), blocking=tuple(blocking))

    def to_json(self) -> str:
        """The content of adoption.json."""
        return to_text({"format": FORMAT, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Adoption:
        """An adoption from its text.

        Raises:
            FedpactError: it is none.
        """
        said = read_json(text.encode(errors="surrogatepass"), "adoption.json", AGAIN)
        names = ("format", *(f.name for f in fields(Adoption)))
        exactly(said, names, "adoption.json", AGAIN)
        if said.pop("format") != FORMAT or said["decision"] not in ("adopt", "refuse"):
            raise FedpactError(
                "adoption.json is of another format, or decides nothing; legal are format "
                f"{FORMAT}, adopt and refuse. Judge the artifact again."
            )
        try:
            checks = tuple(Check(**check) for check in said.pop("checks"))
            blocking = tuple(said.pop("blocking"))
            return Adoption(checks=checks, blocking=blocking, **said)
        except TypeError as fault:
            raise FedpactError(
                f"adoption.json cannot be read ({fault}); legal is what to_json writes. Judge the "
                "artifact again."
            ) from fault
