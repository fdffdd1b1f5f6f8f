"""sweep=optuna: the known optimum is found, and a search goes on wherever it was killed."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import NullPool

from parties.exchange import FedpactError
from simulations.sweeps import Held
from simulations.sweeps.optuna_search import Optuna, offer_of

ROOT = Path(__file__).parents[1]
AXES = {
    "x": {"low": 0, "high": 1},
    "price": {"low": 0, "high": 0.3},
    "play": ["myopic", "equilibrium"],
}


def contract(name: str, **gains: float) -> dict[str, Any]:
    """A contract's part of a row: firms' mean gains, each 0.1 above the low end of its interval."""
    decided = {f: "signs" if gain >= 0.1 else "undecided" for f, gain in gains.items()}
    return {
        f"{name}.signed": set(decided.values()) == {"signs"},
        f"{name}.surplus": math.fsum(gains.values()),
        **{f"{name}.{firm}.low": gain - 0.1 for firm, gain in gains.items()},
        **{f"{name}.{firm}.decision": decision for firm, decision in decided.items()},
    }


def sold(point: Mapping[str, Any]) -> dict[str, Any]:
    """Firm a sells an amount x at a price p <= 0.3, which costs it x^2 / 2 and is worth f x to b.

    The surplus f x - x^2 / 2 is largest at x = f, but a signs only where p - x^2 / 2 >= 0.1: with
    p = 0.3 up to x = sqrt(0.4). There b signs too, and with f = 1 the surplus is sqrt(0.4) - 0.2.
    """
    worth = (0.7 if point["play"] == "myopic" else 1.0) * point["x"]
    a, b = point["price"] - point["x"] ** 2 / 2, worth - point["price"]
    return {"status": "ok", **contract("full_sharing", a=a, b=b)}


def search(design: Optuna, folder: Path, row: Callable[..., dict[str, Any]] = sold) -> list[Held]:
    """Go on with a search until it asks for nothing."""
    folder.mkdir(exist_ok=True)
    design.open(folder)
    held: list[Held] = []
    while points := design.ask(held):
        held += [Held(point, row(point)) for point in points]
    return held


def stored(folder: Path) -> list[tuple[Any, ...]]:
    """What Optuna itself finds in the database."""
    url = f"sqlite:///{folder / 'optuna.db'}"
    storage = RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    trials = optuna.load_study(storage=storage, study_name="sweep").get_trials()
    return [
        (t.number, t.params, t.state.name, t.value, list(t.constraints.values())) for t in trials
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Held]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, search(Optuna(AXES, trials=60, parallel=4), folder)


def test_the_optimum_that_every_firm_signs_is_found(whole: tuple[Path, list[Held]]) -> None:
    _, held = whole
    assert len(held) == 60
    told = Optuna(AXES, trials=60, parallel=4).extra(held)
    best = told["optimum"]
    assert best["surplus"] == pytest.approx(math.sqrt(0.4) - 0.2, abs=0.02)
    assert best["values"]["play"] == "equilibrium"
    assert best["values"]["x"] == pytest.approx(math.sqrt(0.4), abs=0.05)
    assert min(best["lows"].values()) >= 0
    assert held[best["job"]].point == best["values"]
    assert max(one.row["full_sharing.surplus"] for one in held) > best["surplus"]  # not signed
    assert told["told"].startswith(f"optimum +{best['surplus']:.4f} under full_sharing at x=")


def test_the_database_is_optunas_own(whole: tuple[Path, list[Held]]) -> None:
    folder, held = whole
    trials = stored(folder)
    assert [number for number, *_ in trials] == list(range(60))
    for (_, params, state, value, constraints), one in zip(trials, held, strict=True):
        assert (state, value) == ("COMPLETE", one.row["full_sharing.surplus"])
        assert params["x"] == one.point["x"]
        lows = [one.row[f"full_sharing.{firm}.low"] for firm in "ab"]
        assert constraints == pytest.approx([-low for low in lows])


def test_a_search_is_that_of_its_seed(whole: tuple[Path, list[Held]], tmp_path: Path) -> None:
    again = search(Optuna(AXES, trials=12, parallel=4), tmp_path / "again")
    assert again == whole[1][:12]
    other = search(Optuna(AXES, trials=4, parallel=4, seed=1), tmp_path / "other")
    assert other != again[:4]


def test_the_same_search_goes_on_where_it_ended(
    whole: tuple[Path, list[Held]], tmp_path: Path
) -> None:
    search(Optuna(AXES, trials=16, parallel=4), tmp_path)
    assert search(Optuna(AXES, trials=24, parallel=4), tmp_path) == whole[1][:24]
    assert stored(tmp_path) == stored(whole[0])[:24]


class CutError(BaseException):
    """The process is killed here."""


def test_a_search_that_is_killed_at_every_write_is_the_same_search(
    whole: tuple[Path, list[Held]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each write of Optuna to its database the search dies, and is begun again."""
    patience = [0]

    def dying(name: str) -> None:
        write = getattr(RDBStorage, name)

        def once(*given: Any, **more: Any) -> Any:
            done = write(*given, **more)
            patience[0] -= 1
            if patience[0] == 0:
                raise CutError
            return done

        monkeypatch.setattr(RDBStorage, name, once)

    for name in (
        *("create_new_study", "set_study_user_attr", "_create_new_trial"),
        *("set_trial_user_attr", "set_trial_system_attr", "set_trial_state_values"),
    ):
        dying(name)
    cuts, held = 0, None
    while held is None:
        patience[0] = 1 + cuts % 3
        try:
            held = search(Optuna(AXES, trials=14, parallel=4), tmp_path)
        except CutError:
            cuts += 1
    patience[0] = 0
    assert cuts > 14
    assert held == whole[1][:14]
    assert [trial[:4] for trial in stored(tmp_path)] == [t[:4] for t in stored(whole[0])[:14]]


def test_a_study_that_failed_is_told_so_and_the_search_goes_on(tmp_path: Path) -> None:
    def row(point: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "failed"} if point["play"] == "myopic" else sold(point)

    design = Optuna(AXES, trials=24, parallel=6)
    held = search(design, tmp_path, row)
    assert len(held) == 24
    states = [state for _, _, state, *_ in stored(tmp_path)]
    assert states == ["COMPLETE" if one.row["status"] == "ok" else "FAIL" for one in held]
    assert states.count("FAIL") > 0
    assert design.extra(held)["optimum"]["values"]["play"] == "equilibrium"


def test_where_nothing_is_signed_it_says_so(tmp_path: Path) -> None:
    def row(point: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "ok", **contract("full_sharing", a=point["x"], b=-0.2)}

    design = Optuna({"x": {"low": 0, "high": 1}}, trials=4, contract="full_sharing")
    told = design.extra(search(design, tmp_path, row))
    assert told["optimum"] is None
    assert told["trials"] == 4
    assert told["told"] == "in none of 4 studies every firm surely signs full_sharing"


def test_values_come_back_as_they_were_given(tmp_path: Path) -> None:
    axes = {
        "who": [["a"], ["a", "b"]],
        "mixed": [True, 1, "1", None],
        "n": {"low": 1, "high": 1000, "integer": True, "log": True},
    }
    held = search(
        Optuna(axes, trials=20, parallel=20),
        tmp_path,
        lambda point: {"status": "ok", **contract("full_sharing", a=1.0, b=float(point["n"]))},
    )
    mixed = {(type(one.point["mixed"]), one.point["mixed"]) for one in held}
    assert mixed == {(bool, True), (int, 1), (str, "1"), (type(None), None)}
    assert {str(one.point["who"]) for one in held} == {"['a']", "['a', 'b']"}
    assert {type(one.point["n"]) for one in held} == {int}
    assert all(1 <= one.point["n"] <= 1000 for one in held)


def test_an_offer_is_the_richest_that_is_signed_or_else_the_nearest() -> None:
    rich, poor = contract("train_sharing", a=0.9, b=0.0), contract("full_sharing", a=0.1, b=0.2)
    best = offer_of({"status": "ok", **rich, **poor}, None)
    assert best is not None
    assert (best.contract, best.signed) == ("full_sharing", True)
    named = offer_of({"status": "ok", **rich, **poor}, "train_sharing")
    assert named is not None
    assert (named.contract, named.signed) == ("train_sharing", False)
    nearest = offer_of({"status": "ok", **contract("full_sharing", a=9.0, b=-0.3), **rich}, None)
    assert nearest is not None
    assert nearest.contract == "train_sharing"
    declined = {**poor, "full_sharing.a.low": 0.0, "full_sharing.a.decision": "refuses"}
    no_deal = offer_of({"status": "ok", **declined}, None)
    assert no_deal is not None
    assert not no_deal.signed
    unknown = {**poor, "full_sharing.a.low": None, "full_sharing.surplus": None}
    assert offer_of({"status": "ok", **unknown}, None) is None


def test_another_search_cannot_go_on_in_the_same_file(tmp_path: Path) -> None:
    search(Optuna(AXES, trials=4), tmp_path)
    with pytest.raises(FedpactError, match=r"holds a search with other axes, seed, parallel"):
        search(Optuna(AXES, trials=4, seed=1), tmp_path)
    with pytest.raises(FedpactError, match=r"holds a search over other studies: trial 0 came to"):
        search(Optuna(AXES, trials=4), tmp_path, lambda p: sold({**p, "x": 0.0}))
    with pytest.raises(FedpactError, match=r"do not hold\. Did you mean 'full_sharing'"):
        search(Optuna(AXES, trials=4, contract="ful_sharing"), tmp_path / "contract")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("no database, but some words that are long enough")
    with pytest.raises(FedpactError, match=r"optuna\.db cannot be used .*not a database"):
        search(Optuna(AXES, trials=4), tmp_path)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "sweep=optuna has no axes to search"),
        ({"axes": AXES, "trials": 0}, "trials is 0; legal is a whole number >= 1"),
        ({"axes": AXES, "parallel": 0}, "parallel is 0; legal is a whole number >= 1"),
        ({"axes": AXES, "contract": 3}, "contract is 3; legal is the name of a contract, or null"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        Optuna(**fields)


def test_without_optuna_it_says_what_to_install() -> None:
    """In a process that cannot find the package."""
    code = (
        "import sys\n"
        "sys.modules['optuna'] = None\n"
        "from simulations.sweeps.optuna_search import Optuna\n"
        "Optuna({'x': [1]})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "needs the package optuna, which is not installed" in done.stderr
