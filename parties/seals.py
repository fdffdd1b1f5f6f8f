"""Seals: models that cross are signed by who answers for them, and unsigned ones are not taken.

A firm signs the model that it trained. The operator, through whom all passes, forwards it as it is
or combines it with others and signs what it publishes. So a firm knows whose model it trains from,
and nobody can give another's model for its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from parties.answering import Answering
from parties.exchange import (
    Answer,
    Enrol,
    FedpactError,
    Measure,
    Offer,
    Play,
    Refusal,
    Request,
    Seal,
    Serve,
    Trained,
    Weights,
)
from parties.memory import Memory
from parties.reuse.manifest import digest_of
from parties.reuse.signing import is_signed, sign

OPERATOR = "operator"


def put(
    weights: Weights, study: str, contract: str, seed: int, turn: int, signer: str, secret: Path
) -> Weights:
    """The model with its signer's seal.

    Args:
        study: sha256 of the study; contract, seed, turn: where it was sent.
        secret: file of the signer's private key.
    """
    content = _signed(weights, study, contract, seed, turn, signer)
    return replace(weights, seal=Seal(signer, turn, sign(content, secret).hex()))


def objection(
    weights: Weights, study: str, contract: str, seed: int, keys: Mapping[str, str]
) -> str:
    """Why a model's seal does not hold, or "".

    Args:
        keys: signer -> its pinned public key (`parties.reuse.signing.is_signed`).
    """
    seal = weights.seal
    if seal is None:
        return "the model is not signed"
    if seal.signer not in keys:
        return f"the model is signed by {seal.signer!r}, whose key is not pinned"
    content = _signed(weights, study, contract, seed, seal.round, seal.signer)
    if not is_signed(content, bytes.fromhex(seal.signature), seal.signer, keys):
        return f"the signature of {seal.signer} is not of this model, study, contract and seed"
    return ""


def _signed(
    weights: Weights, study: str, contract: str, seed: int, turn: int, signer: str
) -> bytes:
    """What is signed. (Not the number of examples: the operator caps it at the declared one.)"""
    parts = {
        f"{part}/{name}": array
        for part in ("arrays", "precision", "card")
        for name, array in (getattr(weights, part) or {}).items()
    }
    about = [study, contract, seed, turn, signer, digest_of(parts)]
    return b"fedpact model\n" + json.dumps(about).encode()


def models_of(request: Request) -> dict[str, Weights]:
    """Field -> model that a request carries."""
    fields = {Offer: ("model",), Serve: ("model",), Measure: ("model", "last")}
    names = fields.get(type(request), ("rival_model",) if isinstance(request, Play) else ())
    found = {name: getattr(request, name) for name in names}
    return {name: model for name, model in found.items() if model is not None}


@final
@dataclass(frozen=True)
class SealedFirm:
    """A firm that signs every model that it sends, and takes none that is not signed.

    Args:
        firm: answers; name: its own.
        secret: file of its private key; keys: signer -> pinned public key, the operator's among
            them; its own is not needed.
        study: sha256 of the study that it agreed to.
    """

    firm: Answering
    name: str
    secret: Path
    keys: Mapping[str, str]
    study: str

    def __post_init__(self) -> None:
        if OPERATOR not in self.keys:
            raise FedpactError(
                f"The pinned keys are those of {sorted(self.keys)}; the operator's must be among "
                "them. Put operator.pub into the firm's keys/."
            )

    def answer(self, request: Request, memory: Memory) -> Answer:
        """The firm's answer, signed; a refusal where a model's signature does not hold."""
        if not isinstance(request, Enrol):
            contract, seed = request.terms.contract, request.seed
            for field, model in models_of(request).items():
                others = {k: v for k, v in self.keys.items() if k != OPERATOR}
                keys = others if field == "rival_model" else self.keys
                problem = objection(model, self.study, contract, seed, keys)
                if problem:
                    return Refusal(f"{self.name} takes signed models only: {problem}")
        answer = self.firm.answer(request, memory)
        if isinstance(answer, Trained) and answer.weights is not None:
            assert isinstance(request, Offer)
            where = (self.study, request.terms.contract, request.seed, request.round)
            return replace(answer, weights=put(answer.weights, *where, self.name, self.secret))
        return answer
