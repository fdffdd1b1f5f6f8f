"""A real desk with a real firm in a process of its own: `python -m tests.desk_process FOLDER`."""

import logging
import sys
from pathlib import Path

import torch

from parties.desk.agreement import Agreement
from parties.desk.audit import Audit
from parties.desk.desk import Desk
from parties.desk.kept import Kept
from parties.desk.policy import Policy
from parties.desk.serving import serve_until_told
from parties.exchange import Terms
from simulations.build import build
from tests.checks import SMALL_LOANS, plain

MOST_EPOCHS = 10**6  # an offer may ask for a training of an hour


def desk_of(folder: Path) -> Desk:
    """The desk of a small lender, in this folder."""
    firm = build(plain(*SMALL_LOANS)["parties"]["lender_a"])
    terms = Terms("train_sharing", models=True, predictions=False, rounds=2)
    agreed = Agreement("", {"train_sharing": terms}, (0,), MOST_EPOCHS)
    audit = Audit(folder / "audit.jsonl", folder / "sign.key")
    return Desk("lender_a", firm, agreed, Policy(), audit, Kept(folder / "memory"))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    serve_until_told(desk_of(Path(sys.argv[1])), Path(sys.argv[1]) / "desk.sock")
