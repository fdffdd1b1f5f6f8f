"""What a firm is told of its data before it joins: all that is wrong, and what would leave."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from parties.datasets.own.examples import EXAMPLES
from parties.exchange import FedpactError, Terms
from simulations.build import as_text, sha256
from simulations.deploy.check import check_firm, example, lines, print_report
from tests.checks import config_of, write_own

OWN = (
    "dataset@parties.lender_a.dataset=own",
    "parties.lender_a.dataset.description=lender_a.yaml",
    "study.seeds=3",
)


def firm(folder: Path, *overrides: str, data: str | None = "data.yaml", kind: str = "csv") -> Path:
    """A firm's folder, as it is before the firm joins."""
    if data is not None:
        write_own(folder, kind)
    folder.mkdir(exist_ok=True)
    text = as_text(config_of(*(overrides or OWN)))
    (folder / "study.json").write_text(text)
    (folder / "study.sha256").write_text(sha256(text) + "\n")
    (folder / "firm.yaml").write_text(f"firm: lender_a\ndata: {data or 'null'}\n")
    return folder


def test_a_firm_whose_data_are_sound_is_told_what_they_are(tmp_path: Path) -> None:
    report = check_firm(firm(tmp_path))
    assert (report.ok, report.findings, report.remarks) == (True, (), ())
    assert list(report.hashes) == ["data.yaml", "clients.csv"]
    assert report.rows == 300
    assert report.inputs[0] == 6  # age, three levels of housing, income and whether it is missing
    assert report.columns == {
        "id": ("client",),
        "feature": ("income", "housing", "age"),
        "label": ("paid_back",),
        "unused": ("name", "street"),
    }
    assert report.missing == {"income": 30}
    table = pd.read_csv(tmp_path / "clients.csv")
    assert report.labels == table["paid_back"].value_counts().to_dict()
    assert list(report.parts) == [0, 1, 2]
    for parts in report.parts.values():
        assert sum(size["rows"] for size in parts.values()) == 300
        assert set(parts) == {"training", "validation", "contested"}
        for size in parts.values():
            assert size["no"] + size["yes"] == size["rows"]


def test_what_would_leave_is_what_the_terms_of_the_study_say(tmp_path: Path) -> None:
    report = check_firm(firm(tmp_path))
    for name, switches in (("no_sharing", (False, False)), ("full_sharing", (True, True))):
        terms = Terms(name, *switches, rounds=int(switches[0]))
        assert report.leaves[name] == terms.operator_sees("contested")
    assert list(report.leaves) == ["no_sharing", "train_sharing", "infer_sharing", "full_sharing"]
    shown = "\n".join(lines(report))
    assert shown.count("actions on contested clients") == 1
    assert "under full_sharing: trained weights" in shown
    assert "under no_sharing" not in shown
    assert shown.endswith("Nothing is wrong. Nothing was sent.")


def test_everything_wrong_is_told_at_once_in_words_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = firm(tmp_path, *OWN, "parties.lender_a.dataset.classes=3")
    table = pd.read_csv(folder / "clients.csv")
    table.loc[1, "age"] = 7
    table.loc[2, "client"] = table.loc[3, "client"]
    table.loc[4, "paid_back"] = "maybe"
    table["salary"] = 1
    table.drop(columns="housing").to_csv(folder / "clients.csv", index=False)
    (folder / "study.sha256").write_text("0" * 64)
    report = check_firm(folder)
    assert not report.ok
    assert [f.where for f in report.findings] == [
        "study.json", "housing", "salary", "client", "paid_back", "age", "label.classes",
    ]  # fmt: skip
    assert report.rows == 300
    assert report.labels["unknown"] == 1
    print_report(report)
    shown = capsys.readouterr().out
    assert "7 to mend before lender_a joins:" in shown
    assert "6. age: is out of range; legal is 18 to 110. (row 2: '7')" in shown
    print_report(report, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], len(told["findings"])) == (False, 7)
    assert told["findings"][3]["rows"] == ["row 3", "row 4"]
    assert told["parts"]["0"]["contested"]["rows"] > 0


def test_parts_that_the_market_needs_and_the_data_lack_are_told(tmp_path: Path) -> None:
    folder = firm(tmp_path, kind="parquet")
    report = check_firm(folder)  # it has parts for seeds 0 and 1, and the study has three
    assert [str(f).split(";")[0] for f in report.findings] == [
        f"parts: {part}: has no row under seed 2"
        for part in ("training", "validation", "contested")
    ]
    report = check_firm(firm(tmp_path / "own", *OWN, "study.seeds=1", kind="images"))
    assert [f.where for f in report.findings] == ["parts: validation", "parts: contested"]


def test_clients_of_the_future_are_remarked_and_no_fault(tmp_path: Path) -> None:
    folder = firm(tmp_path, *OWN, "study.seeds=2", kind="parquet")
    table = pd.read_parquet(folder / "clients.parquet")
    table.loc[table["part"] == "contested", "paid_back"] = pd.NA
    table.drop(columns="seed").to_parquet(folder / "clients.parquet")
    text = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(text.replace("  seed: seed", "  # seed: seed"))
    report = check_firm(folder)
    assert report.ok
    assert report.labels["unknown"] == 75
    assert report.remarks[0].startswith("Under seed 0 75 of 75 contested clients have no label yet")
    assert report.remarks[2].startswith("The parts are the same under every seed")


def test_data_that_ship_with_fedpact_have_a_report_too(tmp_path: Path) -> None:
    small = ("parties.lender_a.dataset.clients=1500", "study.seeds=1")
    report = check_firm(firm(tmp_path, *small, data=None))
    assert report.ok
    assert report.parts[0]["training"]["rows"] == 900
    assert lines(report)[0].endswith("data that ship with Fedpact")


@pytest.mark.parametrize(
    ("overrides", "data", "told"),
    [
        (OWN, None, "is null, and the study asks for your own data"),
        (("study.seeds=1",), "data.yaml", "the study gives this firm TaiwanCredit"),
        (OWN, "absent.yaml", "cannot be read"),
    ],
)
def test_data_that_the_study_does_not_mean_are_told(
    overrides: tuple[str, ...], data: str | None, told: str, tmp_path: Path
) -> None:
    (found,) = check_firm(firm(tmp_path, *overrides, data=data)).findings
    assert told in str(found)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("firm.yaml", "firm: lender_aa", "who is not in the study. Did you mean 'lender_a'"),
        ("firm.yaml", "data: data.yaml", "names no firm"),
        ("firm.yaml", "firm: [", "is not YAML"),
        ("firm.yaml", "firm: lender_a\ndata: [a]", "has data:"),
        ("study.json", "{", "is not JSON"),
        ("study.json", "[]", "names no parties"),
        ("study.json", None, "cannot be read"),
    ],
)
def test_a_folder_that_is_not_a_firms_is_refused(
    file: str, text: str | None, told: str, tmp_path: Path
) -> None:
    folder = firm(tmp_path)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(FedpactError, match=told):
        check_firm(folder)


def test_an_example_a_kind_is_printed_for_a_firm_to_begin_with() -> None:
    assert {kind: example(kind) for kind in EXAMPLES} == EXAMPLES
    with pytest.raises(FedpactError, match="legal are csv, parquet, images"):
        example("xls")
