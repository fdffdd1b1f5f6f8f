"""Checks 1 to 3: are these the files, who made them, can they run code?"""

from __future__ import annotations

from parties.exchange import FedpactError
from parties.reuse.artifact import MANIFEST, SIGNATURE
from parties.reuse.bounded import ArtifactError
from parties.reuse.checks import WARN, Case, Finding, judged, skipped
from parties.reuse.signing import is_signed


def files(case: Case) -> Finding:
    """Check 1: the folder holds the files that the manifest names, with their sha256."""
    if case.parcel is None:
        return skipped("The model came in a message: there are no files to compare.")
    return judged(case.parcel.objection)


def signature(case: Case) -> Finding:
    """Check 2: the firm that the manifest names has signed it, with the key that is pinned."""
    firm, sender = case.manifest.firm, case.receiver.sender
    if sender is not None and sender != firm:
        return judged(
            f"{sender} handed over a model that names {firm} as its maker; legal is a maker that "
            "hands over its own. Ask the maker.",
        )
    if case.parcel is None:
        return skipped("The model came in a message: there is no signature to verify.")
    found = case.parcel.content.get(SIGNATURE)
    problem = f"There is no {SIGNATURE}; legal is the maker's signature. Ask {firm} to sign it."
    if found is not None:
        try:
            signed = is_signed(case.parcel.content[MANIFEST], found, firm, case.gate.keys)
        except FedpactError as fault:
            problem = f"The signature cannot be verified: {fault}"
        else:
            forged = (
                f"The signature is not {firm}'s: its pinned key does not verify it, and legal is "
                "that key alone. Somebody else made or changed the artifact. Do not use it; ask "
                f"{firm} through another way."
            )
            return judged("" if signed else forged)
    return Finding(WARN, problem) if case.gate.allow_unsigned else judged(problem)


def no_code(case: Case) -> Finding:
    """Check 3: plain arrays only, in files that are what they declare."""
    try:
        case.artifact  # noqa: B018  (opening it is the check)
    except ArtifactError as fault:
        return judged(str(fault))
    return Finding()
