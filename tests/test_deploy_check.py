"""What a firm is told of its data before it joins: all that is wrong, and what would leave."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from parties.datasets.own.examples import EXAMPLES
from parties.exchange import FedpactError, Terms
from simulations.build import as_text, sha256
from simulations.deploy.__main__ import main
from simulations.deploy.check import Report, check_firm, lines
from simulations.deploy.layout import FirmFolder
from tests.checks import SMALL_LOANS, config_of, write_own

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


def checked(folder: Path) -> Report:
    return check_firm(FirmFolder(folder), "lender_a")


def test_a_firm_whose_data_are_sound_is_told_what_they_are(tmp_path: Path) -> None:
    report = checked(firm(tmp_path))
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


def test_every_key_that_counts_has_a_sha256_to_be_compared_by_telephone(tmp_path: Path) -> None:
    folder = firm(tmp_path)
    (folder / "keys").mkdir()
    (folder / "sign.pub").write_text("mine\n")
    (folder / "keys" / "operator.pub").write_text("its\n")
    report = checked(folder)
    assert report.keys == {
        "node.pub": "",
        "sign.pub": sha256("mine\n"),
        "keys/operator.pub": sha256("its\n"),
        "keys/lender_b.pub": "",
    }
    shown = "\n".join(lines(report))
    assert f"  keys/operator.pub  {sha256('its' + chr(10))}" in shown
    assert "  keys/lender_b.pub  is not there; what it signs will be refused" in shown


def test_firms_with_the_same_clients_and_parts_read_out_the_same_sha256(tmp_path: Path) -> None:
    folder = firm(tmp_path)
    told = checked(folder)
    assert f"parts   {told.common}" in lines(told)
    table = pd.read_csv(folder / "clients.csv")
    table.iloc[::-1].assign(age=50).to_csv(folder / "clients.csv", index=False)
    assert checked(folder).common == told.common
    description = folder / "data.yaml"
    text = description.read_text()
    description.write_text(text.replace("key: loans-2026", "key: loans-2027"))
    assert checked(folder).common not in ("", told.common)
    description.write_text(text)
    table[1:].to_csv(folder / "clients.csv", index=False)
    assert checked(folder).common not in ("", told.common)


def test_inputs_have_a_sha256_once_their_columns_are_there(tmp_path: Path) -> None:
    folder = firm(tmp_path)
    assert "sha256 of what they mean" in "\n".join(lines(checked(folder)))
    table = pd.read_csv(folder / "clients.csv").drop(columns="housing")
    table.assign(debt=1, salary=2).to_csv(folder / "clients.csv", index=False)
    report = checked(folder)
    assert [str(finding) for finding in report.findings] == [
        "housing: is described as a feature, but clients.csv has no such column. Correct the name, "
        "or the file.",
        "debt, salary: are columns of clients.csv that the description does not name. Describe "
        "them, or list them under unused (`unused: others` for all the rest).",
    ]
    assert "of what they mean" not in "\n".join(lines(report))


def test_what_would_leave_is_what_the_terms_of_the_study_say(tmp_path: Path) -> None:
    report = checked(firm(tmp_path))
    for name, switches in (("no_sharing", (False, False)), ("full_sharing", (True, True))):
        terms = Terms(name, *switches, rounds=int(switches[0]))
        assert report.leaves[name] == terms.operator_sees("contested", "clients")
    assert list(report.leaves) == ["no_sharing", "train_sharing", "infer_sharing", "full_sharing"]
    shown = "\n".join(lines(report))
    assert shown.count("actions on contested clients") == 1
    assert "under full_sharing: trained weights" in shown
    assert "under no_sharing" not in shown
    assert "under every contract: what each of the contested clients earned the firm" in shown
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
    report = checked(folder)
    assert not report.ok
    assert [f.where for f in report.findings] == [
        "study.json", "housing", "salary", "client", "paid_back", "age", "label.classes",
    ]  # fmt: skip
    assert report.rows == 300
    assert report.labels["unknown"] == 1
    words = ["check", "--firm", "lender_a", "--folder", str(folder)]
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "7 to mend before lender_a joins:" in shown
    assert "6. age: is out of range; legal is 18 to 110. (row 2: '7')" in shown
    assert main([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], len(told["findings"])) == (False, 7)
    assert told["findings"][3]["rows"] == ["row 3", "row 4"]
    assert told["parts"]["0"]["contested"]["rows"] > 0


def test_parts_that_the_market_needs_and_the_data_lack_are_told(tmp_path: Path) -> None:
    folder = firm(tmp_path, kind="parquet")
    report = checked(folder)  # it has parts for seeds 0 and 1, and the study has three
    assert [str(f).split(";")[0] for f in report.findings] == [
        f"parts: {part}: has no row under seed 2"
        for part in ("training", "validation", "contested")
    ]
    report = checked(firm(tmp_path / "own", *OWN, "study.seeds=1", kind="images"))
    assert [f.where for f in report.findings] == ["parts: validation", "parts: contested"]


def test_clients_of_the_future_are_remarked_and_no_fault(tmp_path: Path) -> None:
    folder = firm(tmp_path, *OWN, "study.seeds=2", kind="parquet")
    table = pd.read_parquet(folder / "clients.parquet")
    table.loc[table["part"] == "contested", "paid_back"] = pd.NA
    table.drop(columns="seed").to_parquet(folder / "clients.parquet")
    text = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(text.replace("  seed: seed", "  # seed: seed"))
    report = checked(folder)
    assert report.ok
    assert report.labels["unknown"] == 75
    assert report.remarks[0].startswith("Under seed 0 75 of 75 contested clients have no label yet")
    assert report.remarks[2].startswith("The parts are the same under every seed")


def test_data_that_ship_with_fedpact_have_a_report_too(tmp_path: Path) -> None:
    small = ("parties.lender_a.dataset.clients=1500", "study.seeds=1")
    report = checked(firm(tmp_path, *small, data=None))
    assert report.ok
    assert report.parts[0]["training"]["rows"] == 900
    assert "firm    lender_a: data that ship with Fedpact" in lines(report)


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
    (found,) = checked(firm(tmp_path, *overrides, data=data)).findings
    assert told in str(found)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("firm.yaml", "firm: lender_b", "is of lender_b, not of lender_a"),
        ("firm.yaml", "data: data.yaml", "firm is None; legal is a text"),
        ("firm.yaml", "firm: [", "legal is YAML with the fields firm, data, device, policy"),
        ("firm.yaml", "firm: lender_a\ndata: [a]", r"data is \['a'\]; legal is a text, or null"),
        ("firm.yaml", "firm: lender_a\npolicy: {tels: sums}", "Did you mean 'tells'"),
        ("firm.yaml", "firm: lender_a\npolicy: {tells: no}", "policy.tells is False"),
        ("study.json", "{", "is not JSON"),
        ("study.json", "[]", "names no parties"),
        ("study.json", '{"parties": {"lender_b": {}}}', "lender_a is no firm of this study"),
        ("study.json", None, "cannot be read"),
        ("study.sha256", "", "cannot be read"),
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
        checked(folder)


def test_what_the_desk_will_refuse_of_the_study_is_told_before_it_joins(tmp_path: Path) -> None:
    folder = firm(tmp_path, *SMALL_LOANS, data=None)
    own = "firm: lender_a\npolicy: "
    (folder / "firm.yaml").write_text(own + "{shares: [predictions], tells: sums}\n")
    report = checked(folder)
    assert report.ok  # a firm may refuse
    assert report.refuses == {
        name: f"policy.shares does not hold models, and {name} shares them"
        for name in ("train_sharing", "full_sharing")
    }
    assert list(report.leaves) == ["no_sharing", "infer_sharing"]
    shown = "\n".join(lines(report))
    assert "under full_sharing your desk refuses, so that no more leaves than alone: pol" in shown
    assert "under every contract: mean and variance of what contested clients earned" in shown
    assert "trained weights" not in shown
    assert report.remarks == ()
    (folder / "firm.yaml").write_text(own + "{contracts: [full_sharing]}\n")
    (remark,) = checked(folder).remarks
    assert "refuses no_sharing, with which every contract is compared" in remark
    (folder / "firm.yaml").write_text(own + "{validation_outcomes: false}\n")
    (remark,) = checked(folder).remarks
    assert "policy.validation_outcomes keeps true classes at home. There will be no" in remark


def test_a_kind_that_the_study_keeps_at_home_is_told_too(tmp_path: Path) -> None:
    kept = "parties.lender_a.shares=[models]"
    report = checked(firm(tmp_path, *SMALL_LOANS, kept, data=None))
    why = "the study has lender_a share no predictions"
    assert report.refuses == {"infer_sharing": why, "full_sharing": why}


def test_an_example_a_kind_is_printed_for_a_firm_to_begin_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLES["csv"]
    for kind, text in EXAMPLES.items():
        assert main(["check", "--example", kind]) == 0
        assert capsys.readouterr().out == text
    assert main(["check", "--example", "xls"]) == 2
    assert "legal are csv, parquet, images" in capsys.readouterr().err
    assert main(["check"]) == 2
    assert "legal are --firm NAME and --example" in capsys.readouterr().err


def test_a_study_under_masks_has_a_report_too(tmp_path: Path) -> None:
    words = ("experiment=heart", "study.seeds=1", "contract.train_sharing.secure=true")
    folder = Path(tmp_path / "hungary")
    folder.mkdir()
    text = as_text(config_of(*words))
    (folder / "study.json").write_text(text)
    (folder / "study.sha256").write_text(f"{sha256(text)}  study.json\n")
    (folder / "firm.yaml").write_text("firm: hungary\npolicy: {most_epsilon: 2}\n")
    report = check_firm(FirmFolder(folder), "hungary")
    assert "most_epsilon" in report.refuses["train_sharing"]
    (folder / "firm.yaml").write_text("firm: hungary\npolicy: {masks_only: true}\n")
    assert check_firm(FirmFolder(folder), "hungary").refuses == {}
