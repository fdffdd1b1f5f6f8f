"""The operator's side of a deployment: who is behind which node, and whose signature is whose."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

from flwr.serverapp import Grid

from parties.exchange import Advertised, Answer, Enrol, Keys, Offer, Request, Trained
from parties.seals import OPERATOR, models_of, objection, objection_to_keys, put
from server.intake import UnacceptableError
from server.transport import Apart, Exchange
from simulations.deploy.layout import OperatorFolder

EXCHANGES = "exchanges.csv"


def apart_of(folder: Path, study: str) -> Apart:
    """What a deployment adds to the operator's way to its firms.

    Args:
        folder: of the results, in the operator's folder.
        study: sha256 of the study.
    """
    operator = OperatorFolder(folder.parent)
    seals = OperatorSeals(study, operator.signing_key, pinned(operator.keys))
    return Apart(study, firm_of, seals, noted=partial(note_exchange, folder))


def note_exchange(folder: Path, exchange: Exchange) -> None:
    """A line of exchanges.csv."""
    path = folder / EXCHANGES
    begun = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [f.name for f in dataclasses.fields(Exchange)])
        if begun:
            table.writeheader()
        table.writerow(dataclasses.asdict(exchange) | {"seconds": f"{exchange.seconds:.3f}"})


def exchanges(folder: Path) -> list[dict[str, str]]:
    """The lines of exchanges.csv so far."""
    try:
        with (folder / EXCHANGES).open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if row["seconds"]]
    except OSError:
        return []


def exchange_lines(folder: Path) -> list[str]:
    """What the exchanges of a run took, for the screen."""
    rows = exchanges(folder)
    took = sorted(float(row["seconds"]) for row in rows)
    if not took:
        return []
    questions = sum(int(row["questions"]) for row in rows)
    return [
        f"Network  {len(took)} exchanges with the firms, {questions} questions; an exchange took "
        f"{statistics.median(took):.1f} s [{took[0]:.1f} to {took[-1]:.1f}] (exchanges.csv)"
    ]


def pinned(keys: Path) -> dict[str, str]:
    """Who -> the file of its public key, of a folder of `<who>.pub`."""
    return {key.stem: str(key) for key in sorted(keys.glob("*.pub"))}


def firm_of(grid: Grid) -> dict[int, str]:
    """Node id -> the name under which the operator registered the node's key."""
    nodes: Any = grid.get_nodes()  # Flower's own grid has it
    return {node.node_id: node.name for node in nodes}


@final
@dataclass(frozen=True)
class OperatorSeals:
    """The operator signs what it publishes, and takes no model or mask key that is not signed.

    Args:
        study: sha256 of the study.
        secret: file of the operator's private key; keys: firm -> its public key.
    """

    study: str
    secret: Path
    keys: Mapping[str, str]

    def put(self, request: Request) -> Request:
        """The request; models that firms signed go on as they are."""
        if isinstance(request, Enrol):
            return request
        turn = request.round if isinstance(request, Offer) else request.terms.rounds
        where = (self.study, request.terms.contract, request.seed, turn)
        signed = {
            field: put(model, *where, OPERATOR, self.secret)
            for field, model in models_of(request).items()
            if model.seal is None
        }
        return replace(request, **signed)  # type: ignore[arg-type]  # fields are its own

    def check(self, request: Request, answer: Answer, name: str) -> None:
        """Raises an UnacceptableError where a firm's model or keys are not signed by that firm."""
        own = {name: self.keys[name]} if name in self.keys else {}
        if isinstance(answer, Advertised) and isinstance(request, Keys):
            # Such a firm is left out; else all others would refuse to deal shares to it.
            told = (answer.keys, answer.signature, name)
            problem = objection_to_keys(*told, self.study, request, own)
            if problem:
                raise UnacceptableError(problem)
        if not isinstance(answer, Trained) or answer.weights is None:
            return
        assert isinstance(request, Offer)
        terms = request.terms
        problem = objection(answer.weights, self.study, terms.contract, request.seed, own)
        seal = answer.weights.seal
        if not problem and seal is not None and seal.round != request.round:
            problem = f"the model was signed for round {seal.round}, this is round {request.round}"
        if problem:
            raise UnacceptableError(problem)
