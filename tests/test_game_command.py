"""`python -m simulations.game` solve and explain, as a person or a script would call them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulations.game.__main__ import main
from tests.games import ROW, ROWS

GOLDEN = str(Path(__file__).parent / "golden" / "contracts.json")
QUESTION = {key: ROW["S1"][key] for key in ("id", "setting", "params")}


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str, status: int = 0) -> str:
        assert main(words) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    return call


def test_the_golden_file_is_answered_as_it_is_printed(told: Any) -> None:
    found = json.loads(told("solve", GOLDEN))
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    for ours, golden in zip(found, ROWS, strict=True):
        assert {key: ours[key] for key in golden} == golden
        assert set(ours) == {*golden, "transfers"}


def test_a_single_row_is_answered_by_a_single_row(told: Any, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    file.write_text(json.dumps(QUESTION))
    found = json.loads(told("solve", str(file)))
    assert found["transfers"]["full_sharing"] == {
        "exists": True,
        "interval": ["1/40", "3/40"],
        "nash": "1/20",
        "surplus": "1/20",
        "two_part": {
            "payer": "firm2",
            "fee": "0",
            "price_a_prediction": "1/20",
            "price_limit": "1/20",
        },
    }


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["selected_ex_ante", "paper_interim"]),
        (("--definition", "paper", "--timing", "interim"), ["paper_interim"]),
        (("--definition", "selected"), ["selected_interim", "selected_ex_ante"]),
        (("--timing", "ex_ante"), ["paper_ex_ante", "selected_ex_ante"]),
    ],
)
def test_readings_can_be_chosen(told: Any, words: tuple[str, ...], names: list[str]) -> None:
    (row,) = [r for r in json.loads(told("solve", GOLDEN, *words)) if r["id"] == "M5"]
    assert list(row["irpo"]) == list(row["ir"]) == names


def test_more_says_what_it_rests_on(told: Any) -> None:
    found = {row["id"]: row for row in json.loads(told("solve", GOLDEN, "--more"))}
    assert found["S1"]["honesty"]["infer_sharing"]["firm1"] == {"gain": "3/20", "audit": "3/10"}
    assert found["H1"]["uniquely_irpo"]["paper_interim"] == "infer_sharing"
    assert found["H1"]["objections"]["paper_interim"]["full_sharing"] == {
        "firm": "firm1",
        "occasion": ["I", "nothing"],
        "offered": "1/2",
        "demanded": "211/400",
    }
    assert found["S1"]["clients_needed"]["full_sharing"] == {"firm1": 289, "firm2": 159}
    assert found["M5"]["equilibria"]["no_sharing"]["components"][0]["pure_count"] == 3
    assert found["S6"]["welfare"]["train_sharing"]["paper_interim"]["lowers_trade"] is True


def test_a_row_in_words_says_who_refuses_and_why(told: Any) -> None:
    words = told("explain", GOLDEN, "--id", "S1")
    assert "infer_sharing: would not be signed." in words
    assert "Firm 1 refuses: it would get 3/20 (0.1500) at most, and no_sharing may give it" in words
    assert "firm 1 plays 1 on s1=1, else 0, and firm 2 plays 1 on s2=1, else 0" in words
    assert (
        "1/40 (0.0250) to 3/40 (0.0750) a client from firm 2 to firm 1 leaves neither worse off"
        in words
    )
    assert "Firm 1 could gain 3/20 (0.1500) by misreporting" in words


def test_every_golden_row_can_be_explained_under_every_reading(told: Any) -> None:
    for definition in ("paper", "selected"):
        for timing in ("interim", "ex_ante"):
            words = told("explain", GOLDEN, "--definition", definition, "--timing", timing)
            assert words.count("no_sharing: ") == len(ROWS)


def test_an_interim_refusal_names_the_observation(told: Any) -> None:
    words = told("explain", GOLDEN, "--id", "H1")
    assert "Firm 1 refuses when its training observation is I" in words
    assert "(IRPO), and no other contract is." in words


def test_contracts_of_ones_own_are_masks(told: Any, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    mine = {"no_sharing": {}, "full_sharing": {}, "to_2": {"firm2": ["s1"]}}
    file.write_text(json.dumps(QUESTION | {"contracts": mine, "firms": ["north", "south"]}))
    found = json.loads(told("solve", str(file)))
    assert list(found["payoffs"]) == list(mine)
    assert found["contracts"] == mine
    words = told("explain", str(file))
    assert "north refuses" in words
    assert "firm 1" not in words


def broken(**changes: Any) -> str:
    return json.dumps({k: v for k, v in (QUESTION | changes).items() if v is not None})


def params(**changes: Any) -> dict[str, Any]:
    found = QUESTION["params"] | changes
    return {k: v for k, v in found.items() if v is not None}


MISTAKES = [
    ("{", "is not JSON"),
    ("[]", "holds no rows"),
    ("[3]", "holds no rows"),
    (broken(setting="corelation"), "Did you mean 'correlation'?"),
    (broken(setting=None), "setting is None"),
    (broken(params=None), "params is None"),
    (broken(params=params(alhpa="1/2")), "Did you mean 'alpha'?"),
    (broken(params=params(beta=None)), "params lacks beta"),
    (broken(params=params(worlds=["1/2"])), 'legal is {"weight": ..., "rho": ...}'),
    (broken(params=params(worlds="x")), "worlds is 'x'; legal is a list"),
    (broken(params=params(R="01")), "R is '01'; legal is a list"),
    (broken(params=params(alpha="3/2")), "Row S1: alpha is 3/2"),
    (broken(params=params(worlds=[{"weight": 1, "rho": "3/4"}])), "from 1/2 to 7/10"),
    (broken(firms=["x"]), "firms is"),
    (broken(contracts={"full_sharing": {}}), "no_sharing must be among them"),
    (broken(contracts=5), "contracts is 5; legal is an object"),
    (broken(contracts=["no_sharing", ["a"]]), "legal is an object name -> mask"),
    (broken(contracts={"no_sharing": {}, "x": {"firm1": 5}}), "firm1 sees 5 of its rival"),
    (broken(contracts={"no_sharing": {}, "x": {"firm1": "z2"}}), "firm1 sees 'z2' of its rival"),
    (broken(contract={}), "Did you mean 'contracts'?"),
    ("[" * 100_000, "is not JSON"),
    (broken(params=params(C=["0", "1e99999999"])), "legal is a finite number"),
    (broken(params=params(C=["0", 10**400])), "C[1] is huge"),
    (broken(setting="table", params={"table": 3}), "table is 3; legal is a list"),
    (broken(setting="table", params={"table": [[[1]], [[1]]], "prior": 3}), "prior is 3"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_explained(told: Any, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "row.json"
    file.write_text(text)
    said = told("explain", str(file), status=2)
    assert said.startswith("fedpact: ")
    assert message in said


def test_a_file_that_is_not_there_is_said_to_be_so(told: Any, tmp_path: Path) -> None:
    assert "cannot be read" in told("solve", str(tmp_path / "nothing.json"), status=2)
    assert "has a game.json" in told("explain", str(tmp_path), status=2)
    assert "this file has the rows S1" in told("explain", GOLDEN, "--id", "S99", status=2)


def test_rows_are_read_from_standard_input(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([QUESTION])))
    assert json.loads(told("solve", "-"))[0]["payoffs"] == ROW["S1"]["payoffs"]


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.game", "solve", GOLDEN, "--definition", "papers"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "invalid choice: 'papers'" in done.stderr


def test_a_game_with_too_many_candidates_says_so_and_does_not_hang(
    told: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(1, 50, (2, 20, 20)).tolist()
    file = tmp_path / "row.json"
    file.write_text(broken(setting="table", params={"table": table, "R": [1, 1], "C": [0, 0]}))
    assert "too many" in told("solve", str(file), status=2)


def test_the_certificate_and_the_equilibria_are_written_out(told: Any, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    file.write_text(json.dumps(QUESTION))
    (part,) = json.loads(told("solve", str(file), "--more"))["equilibria"]["no_sharing"][
        "components"
    ]
    assert len(part["eliminated"]) == len(part["information_sets"]) == 4
    (acts,) = part["pure"]
    played = [
        (i["firm"], i.get("s1", i.get("s2")))
        for i, a in zip(part["information_sets"], acts, strict=True)
        if a
    ]
    assert played == [("firm1", "1"), ("firm2", "1")]
