"""The gate on a model that came in a message: no folder and no signature to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from parties.backbones import Backbone
from parties.datasets import Examples
from parties.exchange import Problem, Terms, Weights
from parties.reuse.adoption import Adoption
from parties.reuse.artifact import Artifact
from parties.reuse.checks import Receiver
from parties.reuse.gate import Gate
from parties.reuse.ledger import Ledger
from parties.reuse.manifest import Inputs, Outputs, describe

SENDER = "operator"


@final
@dataclass(frozen=True)
class Checker:
    """Holds a firm's gate on the models that a contract publishes, round by round.

    A message holds tensors and no manifest: it is written here, from what the firm itself knows.
    So only checks of the tensors carry information: 4 (architecture), 5 (weights), 8 (repeatable),
    11 to 13 (cost) and, where there are cases to judge on, 14 to 16 (quality), without an own model
    to compare with, for there is often none yet. The others say the same of every model: 1, 2, 6,
    10 and 17 are skipped, 3, 7 and 9 pass, 18 objects (no licence is declared), 19 does after the
    first round (no parent is) and 20 wherever the policy asks for an epsilon.

    Args:
        gate: its policy; checks that need files are skipped, or block where they are demanded.
        backbone, build: what the model must fit; judging: cases that it was not trained on, or
            None.
        classes: how many; device: where the model is run.
    """

    gate: Gate
    backbone: Backbone
    build: Callable[[], nn.Module]
    training: Examples
    judging: Examples | None
    classes: int
    device: torch.device

    def check(self, model: Weights, terms: Terms, turn: int, ledger: Ledger) -> tuple[bool, Ledger]:
        """Whether the model passes, and the ledger with what was found.

        Args:
            turn: the round, from 0; terms.rounds after the last one.
        """
        adoption = self._judged(model, terms, turn)
        return adoption.adopted, ledger.record(adoption, turn)

    def _judged(self, model: Weights, terms: Terms, turn: int) -> Adoption:
        cases = self.training.features
        inputs = Inputs(cases.shape[1:], float(cases.min()), float(cases.max()) + 1e-6)
        names = tuple(str(number) for number in range(self.classes))
        artifact = Artifact.from_weights(
            model.arrays,
            firm=SENDER,
            model=terms.contract,
            backbone=describe(self.backbone),
            inputs=inputs,
            outputs=Outputs(names),
            environment={},
            licence="NOASSERTION",
            round=turn,
            contract=terms.contract,
        )
        judging = self.judging
        receiver = Receiver(
            build=lambda manifest: self.build(),
            inputs=inputs,
            classes=names,
            features=None if judging is None else judging.features,
            labels=None if judging is None else judging.labels,
            sender=SENDER,
            contract=terms.contract,
            device=str(self.device),
        )
        return self.gate.judge(artifact, receiver)


def problems_of(ledger: Ledger) -> tuple[Problem, ...]:
    """What the operator may know of a ledger: which checks objected, from when to when."""
    return tuple(Problem(p.check, p.name, p.theme, p.opened, p.closed) for p in ledger.problems)
