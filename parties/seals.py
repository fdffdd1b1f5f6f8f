"""Seals: models that cross are signed by who answers for them, and unsigned ones are not taken.

A firm signs the model that it trained. The operator, through whom all passes, forwards it as it is
or combines it with others and signs what it publishes. So a firm knows whose model it trains from,
and nobody can give another's model for its own.

Where models are added up under masks (`parties.masking`), a firm signs the public keys that it
draws for a round, and deals shares to firms only whose keys are signed: an operator cannot take the
place of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from parties.answering import Answering
from parties.exchange import (
    Advertised,
    Answer,
    Array,
    Deal,
    Enrol,
    FedpactError,
    Keys,
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


def put_on_keys(
    told: Advertised, study: str, step: Keys | Deal, signer: str, secret: Path
) -> Advertised:
    """What a firm advertises for a masked round, with its signature.

    Args:
        study: sha256 of the study; step: names the round.
        secret: file of the firm's private key.
    """
    return replace(told, signature=sign(_signed_keys(told.keys, study, step, signer), secret).hex())


def objection_to_keys(
    drawn: Array,
    signature: str,
    signer: str,
    study: str,
    step: Keys | Deal,
    keys: Mapping[str, str],
) -> str:
    """Why a firm's keys for a masked round are not known to be its own, or "".

    Args:
        drawn: the firm's keys for the round, (2, 32); signature: hex, "" where there is none.
        study: sha256 of the study; step: names the round.
        keys: signer -> its pinned public key.
    """
    if signer not in keys:
        return f"there are keys for masks of {signer!r}, whose own key is not pinned"
    if not signature:
        return f"the keys of {signer} are not signed"
    content = _signed_keys(drawn, study, step, signer)
    if not is_signed(content, bytes.fromhex(signature), signer, keys):
        return f"the signature of {signer} is not of these keys, study, contract, seed and round"
    return ""


def _signed_keys(drawn: Array, study: str, step: Keys | Deal, signer: str) -> bytes:
    """What is signed. (Not the number of examples: the other firms are not told it.)"""
    place = [study, step.terms.contract, step.seed, step.round]
    return b"fedpact keys\n" + json.dumps([*place, signer, drawn.tobytes().hex()]).encode()


def models_of(request: Request) -> dict[str, Weights]:
    """Field -> model that a request carries."""
    fields = {Offer: ("model",), Serve: ("model",), Measure: ("model", "last")}
    names = fields.get(type(request), ("rival_model",) if isinstance(request, Play) else ())
    found = {name: getattr(request, name) for name in names}
    return {name: model for name, model in found.items() if model is not None}


@final
@dataclass(frozen=True)
class SealedFirm:
    """A firm that signs the models and mask keys that it sends, and takes none that are unsigned.

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
        objection = self._objection(request)
        if objection:
            return Refusal(f"{self.name} takes signed {objection}")
        answer = self.firm.answer(request, memory)
        if isinstance(answer, Trained) and answer.weights is not None:
            assert isinstance(request, Offer)
            where = (self.study, request.terms.contract, request.seed, request.round)
            return replace(answer, weights=put(answer.weights, *where, self.name, self.secret))
        if isinstance(answer, Advertised):
            assert isinstance(request, Keys)
            return put_on_keys(answer, self.study, request, self.name, self.secret)
        return answer

    def _objection(self, request: Request) -> str:
        if isinstance(request, Enrol):
            return ""
        firms = {name: key for name, key in self.keys.items() if name != OPERATOR}
        for field, model in models_of(request).items():
            keys = firms if field == "rival_model" else self.keys
            problem = objection(model, self.study, request.terms.contract, request.seed, keys)
            if problem:
                return f"models only: {problem}"
        if isinstance(request, Deal):
            # Its own it knows; the later steps have to name the keys that it dealt to.
            for name in sorted(request.keys.keys() - {self.name}):
                drawn, signature = request.keys[name], request.signatures.get(name, "")
                problem = objection_to_keys(drawn, signature, name, self.study, request, firms)
                if problem:
                    return f"mask keys only: {problem}"
        return ""
