"""A firm's data before it joins: everything that is wrong with them, and what would leave the firm.

`python -m simulations.deploy check --firm alpha` reads the firm's own folder (firm.yaml, study.json
and its data) and nothing else, and sends nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from parties.datasets import Dataset
from parties.datasets.own import OwnData, read
from parties.datasets.own.description import PARTS, Finding
from parties.datasets.own.examples import EXAMPLES
from parties.datasets.own.holding import UNKNOWN, Holding
from parties.desk.policy import Policy
from parties.exchange import Array, FedpactError, Measure, Reveal, Terms
from parties.files import digest
from parties.firm import SHAREABLE, Firm
from parties.seals import OPERATOR
from server.market import Market
from server.verdict import BASELINE
from simulations.build import sha256
from simulations.deploy.desk import firm_of
from simulations.deploy.firm_file import FirmFile, read_firm_file
from simulations.deploy.layout import FirmFolder, find_firm, read_study
from simulations.study import Study, study_of

NEEDED = {
    "contested": ("training", "validation", "contested"),
    "common": ("training", "common"),
    "own": ("training", "held_out"),
}
# Parts for which all firms must hold the same clients.
SAME = {"contested": ("validation", "contested"), "common": ("common",), "own": ()}

MISSING = "is not there; what it signs will be refused"


@final
@dataclass(frozen=True)
class Report:
    """What a firm's data are, and what is wrong with them.

    Args:
        firm: its name.
        study: the study's name and sha256.
        keys: file -> sha256 of the firm's own public keys, of the operator's and of the other
            firms'; "" where there is none. They are compared by telephone.
        description: the file that describes the data; None: data that ship with Fedpact.
        findings: everything that has to be mended before the firm joins.
        remarks: what it may want to know.
        hashes: file -> sha256.
        rows: how many there are; inputs: features that a model sees, and sha256 of what they mean
            (firms who average their models need the same; "" before all columns are there).
        columns: use ("feature", "id", "label", "parts", "unused") -> columns found.
        missing: column -> rows in which it is blank.
        labels: class -> rows; "unknown" for those without a label.
        parts: seed -> part -> {"rows": n, class: n}.
        common: sha256 of the ids in the parts for which firms hold the same clients, under all
            seeds; "" where they need not, or where rows cannot be divided yet.
        leaves: contract -> what the operator would receive, in words.
        refuses: contract -> why the firm's desk will take no part in it.
    """

    firm: str
    study: tuple[str, str] = ("", "")
    keys: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    inputs: tuple[int, str] = (0, "")
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[int, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    common: str = ""
    leaves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the firm may join."""
        return not self.findings

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2)


def main(arguments: Sequence[str]) -> int:
    """Print the report of a firm, or a description of data to begin with; 1: something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.deploy check",
        description="All that is wrong with a firm's data and settings, what would leave it and "
        "what its desk would refuse. Sends nothing. Exit status 1: something is to be mended.",
    )
    parser.add_argument("--firm", metavar="NAME", help="its name in the study")
    parser.add_argument("--folder", type=Path, help="the firm's (default: it is looked for)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument(
        "--example",
        nargs="?",
        const="csv",
        metavar="KIND",
        help=f"print a description of data to begin with: {', '.join(EXAMPLES)}",
    )
    chosen = parser.parse_args(arguments)
    if chosen.example is not None:
        sys.stdout.write(example(chosen.example))
        return 0
    if chosen.firm is None:
        raise FedpactError(
            "check is told no firm; legal are --firm NAME and --example. Say which firm you are."
        )
    report = check_firm(find_firm(chosen.firm, chosen.folder), chosen.firm)
    print(report.to_json() if chosen.json else "\n".join(lines(report)))
    return 0 if report.ok else 1


def example(kind: str = "csv") -> str:
    """A description of data to begin with: "csv", "parquet" or "images"."""
    if kind not in EXAMPLES:
        raise FedpactError(
            f"example is {kind!r}; legal are {', '.join(EXAMPLES)}. Name one of them."
        )
    return EXAMPLES[kind]


def check_firm(folder: FirmFolder, name: str) -> Report:
    """Everything about a firm before it joins; sends nothing.

    Raises:
        FedpactError: the folder is not this firm's, so that there is nothing to check.
    """
    own = read_firm_file(folder.settings, name)
    text, promised = read_study(folder)
    findings = []
    if promised != sha256(text):
        problem = (
            f"has sha256 {sha256(text)}, and study.sha256 says {promised}; legal is the file that "
            "the consortium agreed on. Ask for it again, from somebody whom you trust."
        )
        findings.append(Finding("study.json", problem))
    config = _parsed(text)
    firm = firm_of(config, own, folder)
    study = study_of(config, away=True)
    refuses = {name: _refusal(study, name, firm, own.policy) for name in study.contracts}
    told = _data(own, firm.dataset, study)
    return Report(
        firm=name,
        study=(study.name, sha256(text)),
        keys=_keys(folder, [other for other in study.names if other != name]),
        findings=(*findings, *told.pop("findings")),
        remarks=(*told.pop("remarks", ()), *_warnings(study, own.policy, refuses)),
        leaves={
            contract: _terms(study, contract).operator_sees(study.market.clients, firm.tells)
            for contract, why in refuses.items()
            if not why
        },
        refuses={contract: why for contract, why in refuses.items() if why},
        **told,
    )


def _keys(folder: FirmFolder, others: Sequence[str]) -> dict[str, str]:
    pinned = [folder.keys / f"{who}.pub" for who in (OPERATOR, *others)]
    return {
        str(key.relative_to(folder.path)): digest(key.read_bytes()) if key.is_file() else ""
        for key in (folder.node_pub, folder.signing_pub, *pinned)
    }


def _parsed(text: str) -> Any:
    try:
        config = json.loads(text)
    except ValueError as fault:
        raise FedpactError(
            f"study.json is not JSON ({fault}); legal is the file that came with the folder. Ask "
            "the operator for it again."
        ) from fault
    if not isinstance(config, dict) or not isinstance(config.get("parties"), dict):
        raise FedpactError(
            "study.json names no parties; legal is the file that came with the folder. Ask the "
            "operator for it again."
        )
    return config


# -------------------------------------------------------------------------------------- the policy


def _terms(study: Study, contract: str) -> Terms:
    return study.contracts[contract].terms(study.strategy.rounds)


def _refusal(study: Study, contract: str, firm: Firm, policy: Policy) -> str:
    """Why the firm will take no part in a contract, or ""."""
    terms = _terms(study, contract)
    kept = [kind for kind in SHAREABLE if getattr(terms, kind) and kind not in firm.shares]
    why = f"the study has {firm.name} share no {kept[0]}" if kept else ""
    return policy.objection(Measure(terms, study.seeds[0])) or why


def _warnings(study: Study, policy: Policy, refuses: Mapping[str, str]) -> tuple[str, ...]:
    """Where nothing can be held with what the firm refuses."""
    found = []
    if refuses[BASELINE]:
        found.append(
            f"Your desk refuses {BASELINE}, with which every contract is compared: there will be "
            "no verdict."
        )
    asked = Reveal(_terms(study, BASELINE), study.seeds[0])
    if study.market.clients == "contested" and not refuses[BASELINE] and policy.objection(asked):
        found.append(
            f"Your desk refuses what no contest can be held without: {policy.objection(asked)}. "
            "There will be no verdict."
        )
    return tuple(found)


# -------------------------------------------------------------------------------------- the data


def _data(own: FirmFile, dataset: Dataset, study: Study) -> dict[str, Any]:
    """The fields of a report that tell of the data."""
    problem = own.objection_to(dataset)
    if problem:
        return {"findings": (Finding("firm.yaml: data", problem),)}
    if isinstance(dataset, OwnData):
        return _own(dataset, study.seeds, study.market)
    return _shipped(dataset, study.seeds)


def _own(dataset: OwnData, seeds: tuple[int, ...], market: Market) -> dict[str, Any]:
    path = Path(dataset.description)
    holding = read(path)
    said = holding.description
    names = () if said is None or said.label is None else tuple(map(str, said.label.classes))
    divided = {} if not _divisible(holding) else {seed: holding.parts(seed) for seed in seeds}
    findings = [*holding.findings, *dataset.objections(holding)]
    for part in NEEDED[market.clients] if divided else ():
        without = [seed for seed in seeds if len(divided[seed].get(part, ())) == 0]
        if without:
            findings.append(
                Finding(
                    f"parts: {part}",
                    f"has no row under seed {', '.join(map(str, without[:5]))}"
                    f"{' and more' if len(without) > 5 else ''}; a study of {market.clients} "
                    f"clients needs {', '.join(NEEDED[market.clients])}. Give it some.",
                )
            )
    width = 0 if holding.features is None else holding.features.values.shape[1]
    used = {} if said is None else said.named
    whole = said is not None and all(f.name in holding.columns for f in said.features)
    if said is not None and said.images is not None:
        used = dict.fromkeys(names, "class")
    uses: dict[str, list[str]] = {}
    for column in holding.columns:
        uses.setdefault(used.get(column, "unused"), []).append(column)
    return {
        "description": path.name,
        "findings": tuple(findings),
        "remarks": _remarks(holding, divided, names),
        "hashes": holding.hashes,
        "rows": holding.rows,
        "inputs": (width, said.inputs if said is not None and whole else ""),
        "columns": {use: tuple(columns) for use, columns in uses.items()},
        "missing": holding.missing,
        "labels": {} if holding.labels is None else _balance(holding.labels, names),
        "parts": {
            seed: {part: _size(holding.labels, rows, names) for part, rows in parts.items()}
            for seed, parts in divided.items()
        },
        "common": _common(holding, divided, SAME[market.clients]),
    }


def _common(
    holding: Holding, divided: Mapping[int, Mapping[str, Array]], same: tuple[str, ...]
) -> str:
    """sha256 of the clients of these parts under every seed."""
    if not divided or not same or holding.ids is None:
        return ""
    nobody = np.zeros(0, np.int64)
    clients = {
        f"{seed} {part}": holding.ids[parts.get(part, nobody)].tolist()
        for seed, parts in divided.items()
        for part in same
    }
    return sha256(json.dumps(clients))


def _divisible(holding: Holding) -> bool:
    said = holding.description
    if said is None or said.parts is None or holding.ids is None:
        return False
    return said.parts.column is None or holding.fixed is not None


def _balance(labels: Array, names: tuple[str, ...]) -> dict[str, int]:
    found = {name: int(np.sum(labels == place)) for place, name in enumerate(names)}
    unknown = int(np.sum(labels == UNKNOWN))
    return {**found, "unknown": unknown} if unknown else found


def _size(labels: Array | None, rows: Array, names: tuple[str, ...]) -> dict[str, int]:
    return {"rows": len(rows), **({} if labels is None else _balance(labels[rows], names))}


def _remarks(
    holding: Holding, divided: Mapping[int, Mapping[str, Array]], names: tuple[str, ...]
) -> tuple[str, ...]:
    """What is legal and may still be a mistake."""
    found = []
    for seed, parts in divided.items():
        training = parts.get("training")
        if training is None or holding.labels is None:
            continue
        absent = [n for n, count in _balance(holding.labels[training], names).items() if not count]
        if absent:
            found.append(f"Under seed {seed} no training row is of class {', '.join(absent)}.")
        for part in ("contested", "common"):
            rows = parts.get(part, np.zeros(0, np.int64))
            unknown = int(np.sum(holding.labels[rows] == UNKNOWN))
            if unknown:
                found.append(
                    f"Under seed {seed} {unknown} of {len(rows)} {part} clients have no label yet: "
                    "the market can be settled when all are known."
                )
    if len(divided) > 1 and holding.fixed is not None and holding.seeds is None:
        found.append(
            "The parts are the same under every seed, so that seeds differ in what models start "
            "from only. Name a column parts.seed, or use folds."
        )
    return tuple(found)


def _shipped(dataset: Dataset, seeds: tuple[int, ...]) -> dict[str, Any]:
    parts: dict[int, dict[str, dict[str, int]]] = {}
    for seed in seeds:
        split = dataset.split(seed)
        sizes = {part: getattr(split, part) for part in PARTS}
        parts[seed] = {p: {"rows": len(v.ids)} for p, v in sizes.items() if v is not None}
    first = dataset.split(seeds[0]).training
    return {
        "findings": (),
        "hashes": dataset.hashes(),
        "inputs": (first.features.shape[1], ""),
        "parts": parts,
    }


# ------------------------------------------------------------------------------------- in words


def lines(report: Report) -> list[str]:
    """The report for a person, line by line."""
    data = report.description or "data that ship with Fedpact"
    name, study = report.study
    shown = [f"study   {name}", f"sha256  {study}"]
    if report.common:
        shown.append(f"parts   {report.common}")
        shown.append("        (sha256 of who is in which part: the same in all firms of the study)")
    shown += [f"firm    {report.firm}: {data}", ""]
    shown.append("Public keys, sha256 (compare each with its owner by telephone):")
    shown += [f"  {key}  {sha or MISSING}" for key, sha in report.keys.items()] + [""]
    shown += [f"  {name}  sha256 {sha}" for name, sha in report.hashes.items()]
    if report.rows:
        shown.append(f"  {report.rows:,} rows")
    inputs, meaning = report.inputs
    if report.rows and meaning:
        shown.append(f"  {inputs} inputs of a model, sha256 of what they mean: {meaning}")
        shown.append("    (the same in all firms who average their models)")
    shown += [f"  {use}: {', '.join(columns)}" for use, columns in report.columns.items()]
    shown += [f"  missing in {column}: {n:,} rows" for column, n in report.missing.items()]
    if report.labels:
        total = sum(report.labels.values())
        each = [f"{name} {n:,} ({n / total:.1%})" for name, n in report.labels.items()]
        shown.append(f"  labels: {', '.join(each)}")
    if report.parts:
        shown += ["", "Rows of each part:"]
    for seed, parts in report.parts.items():
        sizes = ", ".join(f"{part} {size['rows']:,}" for part, size in parts.items())
        shown.append(f"  seed {seed}: {sizes}")
    shown += ["", "What would leave the firm, to the operator:"]
    always = [s for s in next(iter(report.leaves.values()), ()) if _everywhere(s, report.leaves)]
    shown += [f"  under every contract: {sentence}" for sentence in always]
    for name, sentences in report.leaves.items():
        shown += [f"  under {name}: {s}" for s in sentences if s not in always]
    for name, why in report.refuses.items():
        shown.append(f"  under {name} your desk refuses, so that no more leaves than alone: {why}")
    shown += [""] + [f"Remark: {remark}" for remark in report.remarks]
    count = len(report.findings)
    if not count:
        return [*shown, "Nothing is wrong. Nothing was sent."]
    shown.append(f"{count} to mend before {report.firm} joins:")
    return [*shown, *(f"  {place}. {finding}" for place, finding in enumerate(report.findings, 1))]


def _everywhere(sentence: str, leaves: Mapping[str, tuple[str, ...]]) -> bool:
    return all(sentence in sentences for sentences in leaves.values())
