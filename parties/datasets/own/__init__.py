"""A firm's own data: a table or a folder of images, as a small file of the firm describes them.

`parties.datasets.own.examples` holds a description of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np

from parties.datasets import Cases, Dataset, Examples, Split
from parties.datasets.kept import SPLITS
from parties.datasets.own.description import Finding, describe
from parties.datasets.own.holding import UNKNOWN, Holding
from parties.exchange import Array, FedpactError

CHECK = "`python -m simulations.deploy check --firm NAME` lists everything."


@final
@dataclass(frozen=True)
class OwnData(Dataset):
    """One firm's own data. Nothing is read before the first split: the operator has no such file.

    Args:
        description: the file that describes them (YAML). In a deployment a name only: each firm
            says in its firm.yaml where its file is.
        classes: how many there are; the firms agree on it.
    """

    description: str
    classes: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.description, str) or not self.description.endswith(_ENDINGS):
            raise FedpactError(
                f"dataset.description is {self.description!r}; legal is the name of a file that "
                "ends in .yaml. `python -m simulations.deploy check --example` prints one."
            )
        whole = isinstance(self.classes, int) and not isinstance(self.classes, bool)
        if not whole or not 2 <= self.classes <= 1000:
            raise FedpactError(
                f"dataset.classes is {self.classes!r}; legal is a whole number from 2 to 1000: as "
                "many as label.classes of every firm's description."
            )

    @property
    def at_hand(self) -> bool:
        return False

    def hashes(self) -> dict[str, str]:
        return dict(self.holding().hashes)

    def split(self, seed: int) -> Split:
        return SPLITS.get((type(self), self, seed), self, lambda: self._split(seed))

    def outcomes(self, seed: int, part: str) -> tuple[Array, Array]:
        holding = self.holding()
        rows = holding.parts(seed).get(part)
        if rows is None or part not in ("validation", "contested", "common"):
            return super().outcomes(seed, part)
        assert holding.ids is not None
        assert holding.labels is not None
        unknown = int(np.sum(holding.labels[rows] == UNKNOWN))
        if unknown:
            raise FedpactError(
                f"{unknown} of {len(rows)} {part} clients have no label yet; legal is to settle "
                f"when all are known. Fill them in where {self._name} says, and start again."
            )
        return holding.ids[rows], holding.labels[rows]

    def holding(self) -> Holding:
        """The data, read once a process.

        Raises:
            FedpactError: the first of what is wrong with them.
        """
        return _kept(self)

    def objections(self, holding: Holding) -> list[Finding]:
        """Where the data are not what the study says of them."""
        said = None if holding.description is None else holding.description.label
        if said is None or len(said.classes) == self.classes:
            return []
        return [
            Finding(
                "label.classes",
                f"has {len(said.classes)} classes and the study {self.classes}; legal is as many. "
                "Correct it, or agree on a study with another dataset.classes.",
            )
        ]

    @property
    def _name(self) -> str:
        return Path(self.description).name

    def _split(self, seed: int) -> Split:
        holding = self.holding()
        ids, labels, features = holding.ids, holding.labels, holding.features
        assert ids is not None
        assert labels is not None
        assert features is not None
        parts = holding.parts(seed)
        training = parts.get("training", np.zeros(0, np.int64))
        if len(training) == 0:
            raise FedpactError(
                f"{self._name} gives no training row under seed {seed}; legal is one or more. "
                f"{CHECK}"
            )

        def examples(rows: Array) -> Examples:
            return Examples(ids[rows], features.of(rows, training), labels[rows])

        def cases(part: str) -> Cases | None:
            rows = parts.get(part)
            return None if rows is None else Cases(ids[rows], features.of(rows, training))

        held_out = parts.get("held_out")
        return Split(
            training=examples(training),
            validation=cases("validation"),
            contested=cases("contested"),
            held_out=None if held_out is None else examples(held_out),
            common=cases("common"),
        )


_ENDINGS = (".yaml", ".yml")


def read(path: Path) -> Holding:
    """What a description says and what its files hold, with everything that is wrong with them."""
    said, findings = describe(path)
    if said is None:
        return Holding(None, tuple(findings))
    # Here, since a process whose firms have none of these data is the smaller without pandas.
    if said.images is not None:
        from parties.datasets.own.images import read_images

        holding = read_images(said, findings)
    else:
        from parties.datasets.own.table import read_tables

        holding = read_tables(said, findings)
    hashes = {said.name: said.sha256, **holding.hashes}
    return replace(holding, hashes=hashes, findings=tuple(findings))


@lru_cache(maxsize=32)
def _kept(dataset: OwnData) -> Holding:
    path = Path(dataset.description)
    holding = read(path)
    findings = [*holding.findings, *dataset.objections(holding)]
    if findings:
        more = f" {len(findings)} things are to be mended." if len(findings) > 1 else ""
        raise FedpactError(
            f"The data that {path.name} describes are not sound: {findings[0]}{more} {CHECK}"
        )
    return holding
