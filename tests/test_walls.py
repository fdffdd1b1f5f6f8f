"""What may leave a firm: import walls, and every recorded message of real runs."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path

import numpy as np
import pytest

import parties
import server
from parties.exchange import Array, Packed
from simulations.build import build
from simulations.engines import apps
from simulations.engines.grid import InlineGrid
from simulations.results import RunFolder
from tests.checks import SMALL_HEART, SMALL_LOANS, RecordingGrid, contexts, hold_on, run_config

CONTRACTS = ("no_sharing", "train_sharing", "infer_sharing", "full_sharing")
MODELS = {"train_sharing", "full_sharing"}
PREDICTIONS = {"infer_sharing", "full_sharing"}


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
        assert from_firms <= {"parties.exchange", "parties.wire"}, file


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
    assert users == {"parties/app.py", "parties/wire.py", "server/app.py", "server/transport.py"}


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


@pytest.mark.parametrize("contract", CONTRACTS)
def test_no_feature_and_no_label_is_in_any_message(
    contract: str, logs: dict[str, list[tuple[str, str, Packed]]], tmp_path: Path
) -> None:
    config = json.loads(run_config(tmp_path, *SMALL_LOANS)["config"])
    private: list[Array] = []
    for name in config["parties"]:
        split = build(config["parties"][name]).dataset.split(0)
        private += [split.training.features, split.training.labels]
        private += [split.validation.features, split.contested.features]
    fingerprints = {a[: min(20, len(a))].tobytes() for a in private}
    fingerprints |= {a.T[0][:20].tobytes() for a in private if a.ndim == 2}
    fingerprints |= {a[0].tobytes() for a in private if a.ndim == 2}
    for _, _, packed in logs[contract]:
        for name, array in packed.arrays.items():
            data = np.ascontiguousarray(array).tobytes()
            assert not any(f in data for f in fingerprints), f"{packed.kind} {name}"


def test_hospitals_send_weights_and_losses_but_nothing_of_their_patients(tmp_path: Path) -> None:
    log = record(tmp_path, "train_sharing", *SMALL_HEART)
    kinds = {p.kind for s, _, p in log if s != "operator"}
    assert kinds == {"Trained", "Scores"}
    config = json.loads(run_config(tmp_path / "again", *SMALL_HEART)["config"])
    for name in config["parties"]:
        split = build(config["parties"][name]).dataset.split(0)
        for part in (split.training, split.held_out):
            rows = {row.tobytes() for row in part.features}
            for _, _, packed in log:
                for array in packed.arrays.values():
                    assert not any(row in array.tobytes() for row in rows)


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
