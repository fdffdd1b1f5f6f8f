"""A firm's data before it joins: everything that is wrong with them, and what would leave the firm.

`python -m simulations.deploy check --firm alpha` reads the firm's own folder (firm.yaml, study.json
and its data) and nothing else, and sends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import yaml

from parties.datasets import Dataset
from parties.datasets.own import OwnData, read
from parties.datasets.own.description import PARTS, Finding
from parties.datasets.own.examples import EXAMPLES
from parties.datasets.own.holding import UNKNOWN, Holding
from parties.exchange import Array, FedpactError
from server.contracts import Contract
from server.market import Market
from server.strategies import Strategy
from simulations.build import build, sha256
from simulations.mistakes import did_you_mean
from simulations.study import seeds_of

NEEDED = {
    "contested": ("training", "validation", "contested"),
    "common": ("training", "common"),
    "own": ("training", "held_out"),
}


@final
@dataclass(frozen=True)
class Report:
    """What a firm's data are, and what is wrong with them.

    Args:
        firm: its name.
        study: the study's name and sha256.
        description: the file that describes the data; None: data that ship with Fedpact.
        findings: everything that has to be mended before the firm joins.
        remarks: what it may want to know.
        hashes: file -> sha256.
        rows: how many there are; inputs: features that a model sees, and sha256 of what they mean
            (firms who average their models need the same).
        columns: use ("feature", "id", "label", "parts", "unused") -> columns found.
        missing: column -> rows in which it is blank.
        labels: class -> rows; "unknown" for those without a label.
        parts: seed -> part -> {"rows": n, class: n}.
        leaves: contract -> what the operator would receive, in words.
    """

    firm: str
    study: tuple[str, str] = ("", "")
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
    leaves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the firm may join."""
        return not self.findings

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2)


def example(kind: str = "csv") -> str:
    """A description of data to begin with: "csv", "parquet" or "images"."""
    if kind not in EXAMPLES:
        raise FedpactError(
            f"example is {kind!r}; legal are {', '.join(EXAMPLES)}. Name one of them."
        )
    return EXAMPLES[kind]


def check_firm(folder: Path) -> Report:
    """Everything about a firm's data before it joins; sends nothing.

    Raises:
        FedpactError: the folder is not one of a firm, so that there is nothing to check.
    """
    own, text = _firm_file(folder / "firm.yaml"), _read(folder / "study.json")
    config, findings = _json(text), list[Finding]()
    firm = str(own.get("firm"))
    if firm not in config["parties"]:
        raise FedpactError(
            f"firm.yaml says firm: {firm}, who is not in the study. "
            f"{did_you_mean(firm, sorted(config['parties']))}"
        )
    promised = (_read(folder / "study.sha256").split() or [""])[0]
    if promised != sha256(text):
        findings.append(
            Finding(
                "study.json",
                f"has sha256 {sha256(text)}, and study.sha256 says {promised}; legal is the file "
                "that the consortium agreed on. Ask for it again, from somebody whom you trust.",
            )
        )
    dataset = build(config["parties"][firm]["dataset"])
    assert isinstance(dataset, Dataset)
    market: Market = build(config["market"])
    seeds = seeds_of(config["study"]["seeds"])
    told = _data(folder, own.get("data"), dataset, seeds, market)
    return Report(
        firm=firm,
        study=(str(config["study"]["name"]), sha256(text)),
        findings=(*findings, *told.pop("findings")),
        leaves=_leaves(config, market),
        **told,
    )


def print_report(report: Report, as_json: bool = False) -> None:
    """The report, for a person or as JSON."""
    print(report.to_json() if as_json else "\n".join(lines(report)))


# ------------------------------------------------------------------------------------ the folder


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise FedpactError(
            f"{path} cannot be read ({getattr(fault, 'strerror', None) or 'not UTF-8'}); legal is "
            "the folder of one firm, with firm.yaml, study.json and study.sha256. Name it."
        ) from fault


def _firm_file(path: Path) -> dict[str, Any]:
    try:
        own = yaml.safe_load(_read(path))
    except yaml.YAMLError as fault:
        raise FedpactError(
            f"{path} is not YAML: {' '.join(str(fault).split())}. Mend it."
        ) from fault
    if not isinstance(own, dict) or not isinstance(own.get("firm"), str):
        raise FedpactError(f"{path} names no firm; legal is `firm: NAME`. Write yours.")
    if own.get("data") is not None and not isinstance(own["data"], str):
        raise FedpactError(
            f"{path} has data: {own['data']!r}; legal is the name of a file that describes your "
            "data, such as data.yaml, or null for data that ship with Fedpact."
        )
    return own


def _json(text: str) -> Any:
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


def _leaves(config: Mapping[str, Any], market: Market) -> dict[str, tuple[str, ...]]:
    """What each contract of the study would let the operator see."""
    strategy: Strategy = build(config["strategy"])
    found = {}
    for name in config["study"]["contracts"]:
        contract: Contract = build(config["contract"][name])
        found[name] = contract.terms(strategy.rounds).operator_sees(market.clients)
    return found


# -------------------------------------------------------------------------------------- the data


def _data(
    folder: Path, data: str | None, dataset: Dataset, seeds: tuple[int, ...], market: Market
) -> dict[str, Any]:
    """The fields of a report that tell of the data."""
    own = isinstance(dataset, OwnData)
    if data is None and own:
        problem = (
            "is null, and the study asks for your own data; legal is the name of a file that "
            "describes them. Write `data: data.yaml`."
        )
        return {"findings": (Finding("firm.yaml: data", problem),)}
    if data is None:
        return _shipped(dataset, seeds)
    if not isinstance(dataset, OwnData):
        problem = (
            f"is {data}, and the study gives this firm {type(dataset).__name__}; legal is null, or "
            "a study with dataset=own for this firm. Agree on one."
        )
        return {"findings": (Finding("firm.yaml: data", problem),)}
    return _own(folder / data, dataset, seeds, market)


def _own(path: Path, dataset: OwnData, seeds: tuple[int, ...], market: Market) -> dict[str, Any]:
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
        "inputs": (width, "" if said is None else said.inputs),
        "columns": {use: tuple(columns) for use, columns in uses.items()},
        "missing": holding.missing,
        "labels": {} if holding.labels is None else _balance(holding.labels, names),
        "parts": {
            seed: {part: _size(holding.labels, rows, names) for part, rows in parts.items()}
            for seed, parts in divided.items()
        },
    }


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
    shown = [f"{report.firm} in the study {report.study[0]} (sha256 {report.study[1]}): {data}", ""]
    shown += [f"  {name}  sha256 {digest}" for name, digest in report.hashes.items()]
    if report.rows:
        inputs, meaning = report.inputs
        shown.append(f"  {report.rows:,} rows")
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
    shown += [""] + [f"Remark: {remark}" for remark in report.remarks]
    count = len(report.findings)
    if not count:
        return [*shown, "Nothing is wrong. Nothing was sent."]
    shown.append(f"{count} to mend before {report.firm} joins:")
    return [*shown, *(f"  {place}. {finding}" for place, finding in enumerate(report.findings, 1))]


def _everywhere(sentence: str, leaves: Mapping[str, tuple[str, ...]]) -> bool:
    return all(sentence in sentences for sentences in leaves.values())
