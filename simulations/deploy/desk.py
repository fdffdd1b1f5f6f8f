"""`python -m simulations.deploy desk`: a firm's desk, from its folder."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from parties.datasets.own import OwnData
from parties.desk.agreement import Agreement
from parties.desk.audit import Audit
from parties.desk.desk import Desk
from parties.desk.kept import Kept
from parties.desk.serving import serve_until_told
from parties.exchange import FedpactError
from parties.files import digest as digest_of
from parties.firm import Firm
from parties.privacy import SECRET
from parties.seals import SealedFirm
from server.market import Contest
from simulations.build import build, sha256
from simulations.deploy.apart import pinned
from simulations.deploy.firm_file import FirmFile, read_firm_file
from simulations.deploy.layout import FirmFolder, find_firm, read_study
from simulations.mistakes import did_you_mean
from simulations.study import Study, study_of


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    os.umask(0o077)  # what it keeps holds models and keys
    parser = argparse.ArgumentParser(
        prog="python -m simulations.deploy desk",
        description="A firm's desk: holds its data and models, answers what its node hands it.",
    )
    parser.add_argument("--firm", required=True, help="its name in the study")
    parser.add_argument("--folder", type=Path, help="the firm's (default: it is looked for)")
    parser.add_argument("--socket", type=Path, help="where it answers (default: desk.sock there)")
    chosen = parser.parse_args(arguments)
    folder = find_firm(chosen.firm, chosen.folder)
    _log_to(folder.log)
    # One thread: sums would differ between machines with other numbers of them.
    torch.set_num_threads(1)
    serve_until_told(desk_of(folder, chosen.firm), chosen.socket or folder.socket)
    return 0


def desk_of(folder: FirmFolder, name: str) -> Desk:
    """A firm's desk, ready to serve.

    Raises:
        FedpactError: the study is not the one that was agreed, the firm's file does not fit it, or
            its data cannot be used.
    """
    own = read_firm_file(folder.settings, name)
    text, digest = agreed_study(folder)
    config = json.loads(text)
    firm = firm_of(config, own, folder)
    problem = own.objection_to(firm.dataset)
    if problem:
        raise FedpactError(f"{folder.settings}: data {problem}")
    # Reads the firm's own data: what is wrong with them is told now.
    data = json.dumps([digest, firm.dataset.hashes()], sort_keys=True)
    sealed = SealedFirm(firm, name, folder.signing_key, pinned(folder.keys), digest)
    agreed = agreement(study_of(config, away=True), digest)
    audit = Audit(folder.audit, folder.signing_key)
    # What it knew of another study, or of other data, is not what it would say now.
    signer = digest_of(folder.signing_pub.read_bytes()) if folder.signing_pub.is_file() else ""
    memory = Kept(folder.memory / sha256(data)[:16], signer)
    return Desk(name, sealed, agreed, own.policy, audit, memory)


def agreed_study(folder: FirmFolder) -> tuple[str, str]:
    """The study as one line of JSON, and its sha256: the one that the firm has agreed to.

    Raises:
        FedpactError: study.json is not what study.sha256 says.
    """
    text, promised = read_study(folder)
    if sha256(text) != promised:
        raise FedpactError(
            f"{folder.study} has the sha256 {sha256(text)}, and you agreed to {promised}. Ask for "
            "the agreed one; if the study was changed, agree on it anew."
        )
    return text, promised


def firm_of(config: Mapping[str, Any], own: FirmFile, folder: FirmFolder) -> Firm:
    """The firm as the study has it, with what its own file says of data, device and telling.

    Its noise and its masks are nobody else's to know: the operating system draws them.

    Args:
        config: the study's.

    Raises:
        FedpactError: it is not among the study's firms.
    """
    if own.firm not in config["parties"]:
        raise FedpactError(
            f"{own.firm} is no firm of this study. "
            f"{did_you_mean(own.firm, sorted(config['parties']))}"
        )
    said = dict(config["parties"][own.firm])
    if own.device is not None:
        said["training"] = {**said["training"], "device": own.device}
    firm = build(said)
    assert isinstance(firm, Firm)
    dataset = firm.dataset
    if isinstance(dataset, OwnData) and own.data is not None:
        dataset = replace(dataset, description=str((folder.path / own.data).resolve()))
    shares = tuple(kind for kind in firm.shares if kind in own.policy.shares)
    tells = "sums" if "sums" in (firm.tells, own.policy.tells) else "clients"
    return replace(firm, dataset=dataset, shares=shares, tells=tells, secrets=SECRET)


def agreement(study: Study, digest: str) -> Agreement:
    """What the study lets an operator ask."""
    strategy, market = study.strategy, study.market
    worth: tuple[tuple[float, ...], ...] | None = None
    shares: tuple[float, ...] = (1.0,)
    if isinstance(market, Contest):
        worth = tuple(map(tuple, market.payoff.tolist()))
        shares = (1.0, float(market.gamma))
    extras = {
        "precision": strategy.wants_precision,
        "card": strategy.wants_card,
        "by_class": study.watch,
    }
    return Agreement(
        study=digest,
        terms={name: c.terms(strategy.rounds) for name, c in study.contracts.items()},
        seeds=study.seeds,
        most_epochs=strategy.local_epochs,
        proximal=float(strategy.proximal),
        asks=_asked_by(study.market.clients),
        worth=worth,
        shares=shares,
        extras=tuple(name for name, wanted in extras.items() if wanted),
    )


def _asked_by(clients: str) -> tuple[str, ...]:
    """What a market with such clients asks, by kind and part."""
    rounds = ("Offer", "Keys", "Deal", "Unmask")
    match clients:
        case "contested":
            predictions = ("Query validation", "Query contested", "Reveal")
            return (*rounds, *predictions, "Play", "Settle contested")
        case "common":
            return (*rounds, "Query common", "Serve", "Settle common")
        case _:
            return (*rounds, "Measure")


def _log_to(path: Path) -> None:
    """The firm's own log: errors are told in full here, and nowhere else."""
    for handler in (logging.FileHandler(path), logging.StreamHandler()):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("fedpact").addHandler(handler)
    logging.getLogger("fedpact").setLevel(logging.INFO)
