"""A firm's memory of models: what it saw, what it adopted, how long each problem stayed open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from parties.exchange import FedpactError
from parties.reuse.bounded import ArtifactError, exactly, is_digest, is_number, is_whole, read_json
from parties.reuse.checks import BLOCK, PASS, WARN
from parties.reuse.manifest import Manifest
from parties.reuse.texts import to_text

if TYPE_CHECKING:
    from parties.reuse.adoption import Adoption

FORMAT = 1
RESTORE = "Restore the ledger from a copy, or name a new file to start one."
TRUSTED = (
    1,
    2,
    3,
    4,
)  # a model that fails one of these is not what it says: nothing is noted of it


@final
@dataclass(frozen=True)
class Sight:
    """A model that was offered: who made it, its name, digest, round, contract and parent."""

    firm: str
    model: str
    digest: str
    round: int
    contract: str
    parent: str | None
    adopted: bool

    def __post_init__(self) -> None:
        texts = all(isinstance(t, str) and t for t in (self.firm, self.model, self.contract))
        digests = is_digest(self.digest) and (self.parent is None or is_digest(self.parent))
        _legal(texts and digests and is_whole(self.round) and isinstance(self.adopted, bool), self)


@final
@dataclass(frozen=True)
class Problem:
    """A check that warned or blocked, from the round it first did to the round it passed again.

    Args:
        firm, model: whose model, and which.
        check: its number, with name and theme.
        opened: round.
        closed: round; None while it is open.
        seconds: that the check took in all rounds from one to the other, both counted.
    """

    firm: str
    model: str
    check: int
    name: str
    theme: str
    opened: int
    closed: int | None
    seconds: float

    def __post_init__(self) -> None:
        texts = (self.firm, self.model, self.name, self.theme)
        rounds = is_whole(self.opened) and (self.closed is None or is_whole(self.closed))
        numbers = is_whole(self.check, 1) and is_number(self.seconds) and rounds
        _legal(all(isinstance(t, str) and t for t in texts) and numbers, self)


def _legal(legal: object, value: object) -> None:
    if not legal:
        raise FedpactError(
            f"{value} is no entry of a ledger; legal are names, sha256 digests and whole rounds. "
            f"{RESTORE}"
        )


@final
@dataclass(frozen=True)
class Ledger:
    """What a firm remembers of the models that it was offered; `record` gives a new one."""

    sights: tuple[Sight, ...] = ()
    problems: tuple[Problem, ...] = ()

    def pinned(self, firm: str, model: str) -> Sight | None:
        """What was last adopted under this name."""
        found = [s for s in self.sights if (s.firm, s.model) == (firm, model) and s.adopted]
        return found[-1] if found else None

    def objection(self, offered: Manifest, digest: str) -> str:
        """Why a model does not go on from what is known of its name, or "".

        The same weights under another firm's name are somebody else's. A known name with other
        weights must be of a later round, and come from weights seen under that name.
        """
        makers = sorted({s.firm for s in self.sights if s.digest == digest})
        if makers and offered.firm not in makers:
            return (
                f"{makers[0]} offered exactly these weights before; {offered.firm} names itself as "
                "their maker. Legal is one maker. Ask both whose they are."
            )
        known = [s for s in self.sights if (s.firm, s.model) == (offered.firm, offered.model)]
        if not known or any(s.digest == digest for s in known):
            return ""
        last = self.pinned(offered.firm, offered.model) or known[-1]
        if offered.round <= last.round:
            return (
                f"{offered.firm}'s {offered.model} of round {offered.round} has other weights than "
                f"the one known of round {last.round} ({digest[:12]}, not {last.digest[:12]}); "
                "legal is a later round, or another name. Ask its maker what was changed."
            )
        if offered.parent not in {s.digest for s in known}:
            return (
                f"{offered.firm}'s {offered.model} of round {offered.round} names the parent "
                f"{str(offered.parent)[:12]}, which you never saw; the last one known is "
                f"{last.digest[:12]} of round {last.round}. Ask its maker for the rounds between."
            )
        return ""

    def record(self, adoption: Adoption, round: int) -> Ledger:  # noqa: A002
        """Note a judgement: the model, if it is what it says, and each problem's state.

        Args:
            round: of the federation, in which it was judged.
        """
        if adoption.firm is None or adoption.model is None:
            return self  # nobody is known to have offered it
        problems = list(self.problems)
        for check in adoption.checks:
            key = (adoption.firm, adoption.model, check.number)
            at = next(
                (
                    place
                    for place, p in enumerate(problems)
                    if (p.firm, p.model, p.check) == key and p.closed is None
                ),
                None,
            )
            if at is not None and check.status in (PASS, WARN, BLOCK):
                before = problems[at]
                closed = round if check.status == PASS else None
                seconds = before.seconds + check.seconds
                problems[at] = replace(before, closed=closed, seconds=seconds)
            elif at is None and check.status in (WARN, BLOCK):
                about = Problem(*key, check.name, check.theme, round, None, check.seconds)
                problems.append(about)
        return Ledger((*self.sights, *self._new(adoption)), tuple(problems))

    def _new(self, adoption: Adoption) -> tuple[Sight, ...]:
        bad = any(c.status == BLOCK and c.number in TRUSTED for c in adoption.checks)
        if bad or adoption.digest is None or adoption.round is None or adoption.contract is None:
            return ()
        assert adoption.firm is not None
        assert adoption.model is not None
        foreign = {s.firm for s in self.sights if s.digest == adoption.digest}
        if foreign and adoption.firm not in foreign:
            return ()  # whoever offers another's weights becomes none of their makers
        seen = Sight(
            adoption.firm,
            adoption.model,
            adoption.digest,
            adoption.round,
            adoption.contract,
            adoption.parent,
            adoption.adopted,
        )
        return () if seen in self.sights[-1:] else (seen,)

    def rows(self) -> list[dict[str, Any]]:
        """A row a problem: firm, model, check, name, theme, opened, closed, seconds."""
        return [asdict(problem) for problem in self.problems]

    def open_by_theme(self) -> Mapping[str, int]:
        """Theme -> how many problems are open."""
        themes = sorted({p.theme for p in self.problems})
        open_ones = [p.theme for p in self.problems if p.closed is None]
        return {theme: open_ones.count(theme) for theme in themes}

    def to_json(self) -> str:
        """The ledger as text."""
        return to_text({"format": FORMAT, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Ledger:
        """The ledger from its text.

        Raises:
            FedpactError: it is no ledger.
        """
        said = read_json(text.encode(errors="surrogatepass"), "the ledger", RESTORE)
        exactly(said, ("format", "sights", "problems"), "the ledger", RESTORE)
        if said["format"] != FORMAT:
            raise ArtifactError(
                f"the ledger is of format {said['format']!r}; legal is {FORMAT}. Read it with the "
                "version of Fedpact that wrote it, or name a new file to start one."
            )
        try:
            sights = tuple(Sight(**entry) for entry in said["sights"])
            return Ledger(sights, tuple(Problem(**entry) for entry in said["problems"]))
        except TypeError as fault:
            raise ArtifactError(
                f"the ledger cannot be read ({fault}); legal is what `save` writes. {RESTORE}"
            ) from fault


def save(ledger: Ledger, path: Path) -> None:
    """Replace the file by the new ledger, or leave the old one: never a part of either.

    Raises:
        FedpactError: it cannot be written there.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(ledger.to_json())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as fault:
        raise FedpactError(
            f"The ledger {path} cannot be written ({fault.strerror}); legal is a file in a folder "
            "that is there and may be written to. Name another."
        ) from fault


def load(path: Path) -> Ledger:
    """The ledger of a file; an empty one where there is none in a folder that is there.

    Raises:
        FedpactError: it is no ledger, or none could be written there.
    """
    if path.parent.is_dir() and not path.exists():
        return Ledger()
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise FedpactError(
            f"The ledger {path} cannot be read ({fault.strerror}); legal is a file that `save` "
            "wrote, or a new one in a folder that is there. Name another, or make the folder."
        ) from fault
    return Ledger.from_json(content.decode(errors="surrogateescape"))
