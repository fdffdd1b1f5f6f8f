"""What may leave a firm: import walls, and every recorded message of real runs."""

from __future__ import annotations

import ast
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parties
import server
from parties.exchange import (
    Array,
    Enrol,
    FedpactError,
    Measure,
    Offer,
    Packed,
    Predictions,
    Query,
    Refusal,
    Request,
    Scores,
    Weights,
    pack,
)
from parties.memory import Memory
from server.contracts.full_sharing import FullSharing
from server.contracts.infer_sharing import InferSharing
from server.contracts.no_sharing import NoSharing
from server.contracts.train_sharing import TrainSharing
from simulations.build import build
from simulations.engines import apps
from simulations.results import RunFolder
from tests.checks import SMALL_HEART, SMALL_LOANS, RecordingGrid, contexts, hold_on, run_config
from tests.inline_grid import InlineGrid

CONTRACTS = ("no_sharing", "train_sharing", "infer_sharing", "full_sharing")
MODELS = {"train_sharing", "full_sharing"}
PREDICTIONS = {"infer_sharing", "full_sharing"}


BOTH = {  # arithmetic that the two sides of secure aggregation do alike; no data and no secrets
    *("parties.masking", "parties.masking.keys"),
    *("parties.masking.shamir", "parties.masking.words"),
}


def imports(package: object) -> dict[str, set[str]]:
    """Module file -> every module it imports, at any depth of the file."""
    root = Path(package.__file__).parent  # type: ignore[attr-defined]
    found = {}
    for file in root.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
        found[str(file.relative_to(root))] = names
    return found


def test_the_operator_imports_only_the_wall_of_a_firm() -> None:
    for file, names in imports(server).items():
        from_firms = {n for n in names if n.split(".")[0] == "parties"}
        assert from_firms <= {
            "parties.exchange",
            "parties.exchange.masks",
            "parties.wire",
            *BOTH,
        }, file


def test_a_firm_imports_neither_operator_nor_simulation() -> None:
    for file, names in imports(parties).items():
        assert not {n for n in names if n.split(".")[0] in ("server", "simulations", "hydra")}, file


def test_flower_is_imported_in_few_files() -> None:
    users = {
        f"{package.__name__}/{file}"
        for package in (parties, server)
        for file, names in imports(package).items()
        if {n for n in names if n.split(".")[0] == "flwr"}
    }
    assert users == {
        *("parties/app.py", "parties/wire.py", "server/app.py", "server/transport.py"),
        "server/patience.py",
        "server/strategies/flower.py",
    }


def contract_of(packed: Packed) -> str:
    fields = json.loads(packed.text)["fields"]
    return str(fields["terms"]["fields"]["contract"]) if "terms" in fields else ""


def record(folder: Path, contract: str, *overrides: str) -> list[tuple[str, str, Packed]]:
    """Every message of one session (and of no_sharing's, told apart by their terms)."""
    chosen = "[no_sharing]" if contract == "no_sharing" else f"[no_sharing,{contract}]"
    config = run_config(folder, *overrides, "study.seeds=1", f"study.contracts={chosen}")
    firms = contexts(config)
    names = {node: str(c.node_config["party"]) for node, c in firms.items()}
    grid = RecordingGrid(InlineGrid(apps.client, firms), names)
    hold_on(grid, config)
    # A reply carries no terms: it belongs to the last question put to its sender.
    asked: dict[str, str] = {}
    log = []
    for sender, receiver, packed in grid.log:
        if sender == "operator":
            asked[receiver] = contract_of(packed)
        if asked.get(receiver if sender == "operator" else sender) == contract:
            log.append((sender, receiver, packed))
    return log


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str, Packed]]]:
    folder = tmp_path_factory.mktemp("wall")
    return {c: record(folder / c, c, *SMALL_LOANS) for c in CONTRACTS}


@pytest.mark.parametrize("contract", CONTRACTS)
def test_weights_cross_only_under_contracts_that_share_models(
    contract: str, logs: dict[str, list[tuple[str, str, Packed]]]
) -> None:
    out = [p for s, _, p in logs[contract] if s != "operator" and "Weights" in p.text]
    across = [p for s, _, p in logs[contract] if s == "operator" and "Weights" in p.text]
    assert bool(out) == bool(across) == (contract in MODELS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_rival_gets_predictions_only_under_contracts_that_share_them(
    contract: str, logs: dict[str, list[tuple[str, str, Packed]]]
) -> None:
    log = logs[contract]
    said = [p.arrays["Predictions.probs"] for s, _, p in log if p.kind == "Predictions"]
    assert said, "the operator always sees predictions on the validation part"
    received = [
        a
        for s, _, p in log
        if s == "operator"
        for a in p.arrays.values()
        if any(a.shape == b.shape and np.array_equal(a, b) for b in said)
    ]
    assert bool(received) == (contract in PREDICTIONS)
    if contract not in PREDICTIONS:
        # Not even one firm's contested predictions have reached the operator.
        assert not [p for s, _, p in log if p.kind == "Query" and '"contested"' in p.text]


def holds(array: Array, private: Array) -> bool:
    """Whether the first of some private numbers are in a message's array, whatever its dtype.

    20 features in a row are no coincidence; of labels, which are 0 and 1 only, it takes 80.
    """
    size = 20 if private.dtype.kind == "f" else min(80, private.size)
    if private.size < size or array.size < size or array.dtype.kind not in "iufb":
        return False
    where, what = array.ravel().astype(np.float64), private.ravel()[:size].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(where, size)
    return bool(np.any(np.all(np.isclose(windows, what, atol=1e-6), axis=1)))


def private_of(config: dict[str, Any]) -> list[Array]:
    """Rows and columns of all features, and all labels that only firms hold."""
    found: list[Array] = []
    parties_ = json.loads(config["config"])["parties"]
    for name in parties_:
        split = build(parties_[name]).dataset.split(0)
        labelled = [split.training] + ([split.held_out] if split.held_out else [])
        # A run of equal labels says nothing: take labels from where they change.
        for part in labelled:
            changes = np.flatnonzero(np.diff(part.labels))
            found.append(part.labels[max(changes[0] - 5, 0) :])
        for part in (split.training, split.validation, split.contested, split.held_out):
            if part is not None:
                found += [part.features, part.features[:, 0], part.features[1:]]
    return found


def test_the_search_for_private_numbers_finds_them() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 90)
    features = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    assert holds(np.append(0, labels.astype(np.int8)), labels)
    assert holds(features.astype(np.float64), features)
    assert holds(np.concatenate([np.ones(7), features[:, 0]]), features[:, 0])
    assert not holds(np.zeros(100), labels)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_no_feature_and_no_label_is_in_any_message(
    contract: str, logs: dict[str, list[tuple[str, str, Packed]]], tmp_path: Path
) -> None:
    private = private_of(run_config(tmp_path, *SMALL_LOANS))
    for _, _, packed in logs[contract]:
        for name, array in packed.arrays.items():
            assert not any(holds(array, p) for p in private), f"{packed.kind} {name}"


def test_hospitals_send_weights_and_sums_but_nothing_of_a_patient(tmp_path: Path) -> None:
    log = record(tmp_path, "train_sharing", *SMALL_HEART)
    assert {p.kind for s, _, p in log if s != "operator"} == {"Trained", "Scores"}
    assert not [p for _, _, p in log if p.kind == "Scores" and p.arrays]
    private = private_of(run_config(tmp_path / "again", *SMALL_HEART))
    for _, _, packed in log:
        for name, array in packed.arrays.items():
            assert not any(holds(array, p) for p in private), f"{packed.kind} {name}"


@pytest.mark.parametrize("study", [SMALL_LOANS, SMALL_HEART], ids=["loans", "heart"])
def test_a_hostile_operator_gets_nothing_of_a_single_case(
    study: tuple[str, ...], tmp_path: Path
) -> None:
    """It asks for everything that the wall's types can say, under every contract."""
    config = run_config(tmp_path, *study)
    private = private_of(config)
    parties_ = json.loads(config["config"])["parties"]
    for name in parties_:
        firm = build({**parties_[name], "shares": ["models", "predictions"]})
        declared = firm.answer(Enrol(0), Memory())
        probe = {k: np.zeros(shape, np.float32) for k, shape in declared.tensors.items()}
        first = min(probe)
        probe[first] = np.ones_like(probe[first])
        for contract in (NoSharing(), TrainSharing(), InferSharing(), FullSharing()):
            terms = contract.terms(1)
            model = Weights(probe, 1) if terms.models else None
            requests: list[Request] = [Offer(terms, 0, 0), Measure(terms, 0, model)]
            requests += [Query(terms, 0, part) for part in ("validation", "contested")]
            for request in requests:
                try:
                    answer = firm.answer(request, Memory())
                except FedpactError:
                    continue  # it has no such clients
                packed = pack(answer)
                if isinstance(answer, Scores):
                    assert not packed.arrays
                assert not any(holds(a, p) for a in packed.arrays.values() for p in private)
                if isinstance(request, Query) and request.part == "contested":
                    assert isinstance(answer, Predictions if terms.predictions else Refusal)


def check_audit(folder: Path) -> None:
    """messages.csv of a run on any engine tells the same as the wire."""
    with (folder / "messages.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["contract"] for r in rows} >= set(CONTRACTS)
    for row in rows:
        parties_named = {row["sender"], row["receiver"]} - {"operator"}
        assert len(parties_named) == 1, row
        known = {"lender_a", "lender_b"} | (
            {"node_0000", "node_0001"} if not row["contract"] else set()
        )
        assert parties_named <= known, row
        contract, carries = row["contract"], row["carries"]
        if "weights" in carries or "rival_model" in carries:
            assert contract in MODELS, row
        if "rival.probs" in carries or carries.startswith("contested"):
            assert contract in PREDICTIONS, row
    for contract in CONTRACTS:
        carried = " ".join(r["carries"] for r in rows if r["contract"] == contract)
        assert ("rival_model" in carried) == (contract in MODELS)
        assert ("rival.probs" in carried) == (contract in PREDICTIONS)


def test_the_audit_of_a_run_tells_what_the_wire_carried(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    firms = contexts(config)
    names = {node: str(c.node_config["party"]) for node, c in firms.items()}
    grid = RecordingGrid(InlineGrid(apps.client, firms), names)
    hold_on(grid, config)
    check_audit(tmp_path)
    with (tmp_path / "messages.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(grid.log)
    by_sender = sorted((r["sender"], r["kind"]) for r in rows)
    assert by_sender == sorted((sender, packed.kind) for sender, _, packed in grid.log)
    assert RunFolder(tmp_path).held()


def test_a_worker_with_firms_only_imports_nothing_of_the_operator() -> None:
    """Nor what takes much memory and these firms do not need."""
    words = "simulations.engines.ray_crew simulations.engines.firms parties.datasets.digits"
    code = f"import sys; [__import__(name) for name in {words.split()}]; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "parties.firm" in told
    assert not {name.partition(".")[0] for name in told} & {"server", "flwr", "pandas", "sklearn"}
