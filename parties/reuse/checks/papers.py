"""Checks 17 to 20: the card, the licence, the version, the privacy that is declared."""

from __future__ import annotations

import re
from collections.abc import Collection

from parties.exchange import FedpactError
from parties.reuse.bounded import ArtifactError
from parties.reuse.checks import Case, Finding, judged, skipped
from parties.reuse.manifest import NONE

MOST_NESTED = 20


def documentation(case: Case) -> Finding:
    """Check 17: the card's required fields are filled in, and agree with the manifest."""
    card = case.artifact.card
    if case.parcel is not None:
        try:
            card = case.parcel.card()
        except ArtifactError as fault:
            return judged(str(fault))
    if card is None:
        return skipped("The model came in a message, without a card.")
    wanted = case.gate.card_fields
    empty = [name for name in wanted if not card.fields.get(name)]
    if empty:
        return judged(
            f"The card says nothing of {', '.join(empty)}; the policy asks for all of "
            f"{', '.join(wanted)}. Ask its maker to fill it in.",
            len(empty),
            0,
        )
    if "metrics" in wanted and not re.search(r"n\s*=\s*\d", card.fields["metrics"]):
        return judged(
            f"The card's metrics ({card.fields['metrics'][:80]!r}) have no split size; legal is, "
            "for example, 'accuracy 0.95 (test, n=360)'. Ask its maker on how many cases."
        )
    said = case.manifest
    for name, value in (
        ("licence", said.licence),
        ("parent", said.parent or NONE),
        ("round", str(said.round)),
        ("contract", said.contract),
    ):
        if card.fields.get(name, value) not in ("", value):
            return judged(
                f"The card's {name} is {card.fields[name]!r}, the manifest's {value!r}; both must "
                "be the same. Ask its maker which holds."
            )
    return judged("", 0, 0)


def licence(case: Case) -> Finding:
    """Check 18: the licence is one that the firm allows."""
    said, allowed = case.manifest.licence, case.gate.licences
    try:
        legal = licence_allowed(said, allowed)
    except FedpactError as fault:
        return judged(str(fault), said)
    return judged(
        f"Its licence is {said!r}; legal by the policy are {', '.join(allowed) or 'none'}. Ask "
        "your lawyers, or ask its maker for another licence."
        if not legal
        else "",
        said,
        ", ".join(allowed),
    )


def licence_allowed(expression: str, allowed: Collection[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences.

    Of OR one side must be allowed, of AND both; AND binds closer. `A WITH B` is allowed where A is
    (an exception only grants more), or where it is named as a whole. Identifiers are compared as
    they are written.

    >>> allowed = ["MIT", "Apache-2.0"]
    >>> licence_allowed("MIT OR GPL-3.0-only", allowed), licence_allowed("MIT AND X", allowed)
    (True, False)
    >>> licence_allowed("(MIT OR X) AND Apache-2.0", allowed)
    True

    Raises:
        FedpactError: it is no such expression.

    References:
        SPDX specification 2.3, annex D.
    """
    words = re.findall(r"[()]|[^\s()]+", expression)[::-1]
    wrong = FedpactError(
        f"The licence {expression!r:.100} is no SPDX expression; legal are identifiers joined by "
        "OR, AND and WITH, in parentheses where need be. Ask its maker for one."
    )

    def identifier() -> str:
        word = words.pop() if words else ""
        if not re.fullmatch(r"[A-Za-z0-9.+:-]+", word) or word in ("OR", "AND", "WITH"):
            raise wrong
        return word

    def one(depth: int) -> bool:
        if depth > MOST_NESTED:
            raise wrong
        if words and words[-1] == "(":
            words.pop()
            legal = either(depth + 1)
            if not words or words.pop() != ")":
                raise wrong
            return legal
        name = identifier()
        if words and words[-1] == "WITH":
            words.pop()
            return f"{name} WITH {identifier()}" in allowed or name in allowed
        return name in allowed

    def both(depth: int) -> bool:
        legal = one(depth)
        while words and words[-1] == "AND":
            words.pop()
            legal = one(depth) and legal
        return legal

    def either(depth: int) -> bool:
        legal = both(depth)
        while words and words[-1] == "OR":
            words.pop()
            legal = both(depth) or legal
        return legal

    legal = either(0)
    if words:
        raise wrong
    return legal


def version(case: Case) -> Finding:
    """Check 19: a known name goes on from what was known, under the contract at hand."""
    said, wanted = case.manifest, case.receiver.contract
    if wanted is not None and said.contract != wanted:
        return judged(
            f"It is offered under the contract {said.contract!r}; you would adopt under "
            f"{wanted!r}. Ask its maker for a manifest of that contract.",
            said.contract,
            wanted,
        )
    if said.round > 0 and said.parent is None:
        return judged(
            f"It is of round {said.round} and names no parent; legal is the digest of the weights "
            "that it was trained from. Ask its maker for the chain."
        )
    ledger = case.receiver.ledger
    return judged("" if ledger is None else ledger.objection(said, case.artifact.digest))


def privacy(case: Case) -> Finding:
    """Check 20: the privacy that the contract asks for is declared, which proves nothing."""
    said, gate = case.manifest, case.gate
    value = {"epsilon": said.epsilon, "delta": said.delta}
    limit = {"epsilon": gate.max_epsilon, "delta": gate.max_delta}
    for name, most in limit.items():
        declared = value[name]
        if most is not None and (declared is None or declared > most):
            return judged(
                f"Its maker declares {name} = {'nothing' if declared is None else declared}; the "
                f"contract asks for {most:g} or less. Ask for training with differential privacy, "
                "and for its accounting: the declaration alone proves nothing.",
                value,
                limit,
            )
    return judged("", value, limit)
