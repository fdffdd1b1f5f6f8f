"""Compare: the same study under several methods and settings, paired by seed, as one table.

A configuration with a `compare` section is not one study but one a method and setting; each is held
in a folder of its own and can be resumed. Differences are to the reference method, seed by seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from scipy import stats

from parties.exchange import Array, FedpactError
from parties.files import write_whole
from server.verdict import interval_name
from simulations.measures import curves, seconds, traffic
from simulations.results import RunFolder

Hold = Callable[[list[str], Path], None]
"""Hold one study with these overrides in this folder."""
FIGURES = {
    "last": "accuracy, mean of the last rounds (%)",
    "final": "accuracy after the last round (%)",
    "forgetting": "accuracy lost a round, mean over classes (points)",
    "log_loss": "log loss, mean of the last rounds (nats)",
}


@final
@dataclass(frozen=True)
class Plan:
    """What is compared.

    Args:
        settings: name -> overrides; methods: name -> overrides.
        reference: the method that the others are compared with.
        last: rounds at the end whose accuracies are averaged.
        targets: accuracies of which the first round that reaches them is noted.
        watch: rounds are measured (else only the firms' verdicts are compared).
    """

    settings: Mapping[str, list[str]]
    methods: Mapping[str, list[str]]
    reference: str
    last: int = 5
    targets: tuple[float, ...] = ()
    watch: bool = True

    def __post_init__(self) -> None:
        for kind, held in (("settings", self.settings), ("methods", self.methods)):
            if not held:
                raise FedpactError(
                    f"compare.{kind} is empty; a comparison has one or more. Leave one of them in, "
                    "or use compare=none."
                )
        whole = isinstance(self.last, int) and not isinstance(self.last, bool)
        if not whole or self.last < 1:
            raise FedpactError(f"compare.last is {self.last!r}; legal is a whole number >= 1.")
        for target in self.targets:
            number = isinstance(target, int | float) and not isinstance(target, bool)
            if not number or not 0 < target <= 1:
                raise FedpactError(
                    f"compare.targets has {target!r}; legal are accuracies > 0 and <= 1, such as "
                    "compare.targets=[0.8,0.9]."
                )
        if self.reference not in self.methods:
            raise FedpactError(
                f"compare.reference is {self.reference!r}; legal are the methods "
                f"{', '.join(self.methods)}."
            )
        for kind, named in (("settings", self.settings), ("methods", self.methods)):
            for name, words in named.items():
                if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
                    raise FedpactError(
                        f"compare.{kind}.{name} is {words!r}; legal is a list of overrides. On the "
                        f"command line: \"+compare.{kind}.{name}=['strategy=fedprox']\""
                    )
                if not name.replace("_", "").replace("-", "").isalnum():
                    raise FedpactError(
                        f"compare.{kind} has {name!r}; a name has letters, digits, '_' and '-'."
                    )

    @property
    def cells(self) -> Iterator[tuple[str, str, list[str]]]:
        """Setting, method and their overrides, in order."""
        for setting, fixed in self.settings.items():
            for method, words in self.methods.items():
                yield setting, method, [*fixed, *words]


def plan_of(section: Mapping[str, Any]) -> Plan:
    """A plan from the `compare` section of a resolved configuration."""
    legal = ("settings", "methods", "reference", "last", "targets", "watch")
    unknown = sorted(set(section) - set(legal))
    if unknown:
        raise FedpactError(f"compare has {', '.join(unknown)}; legal are {', '.join(legal)}.")
    for key in ("settings", "methods", "reference"):
        if not section.get(key):
            raise FedpactError(
                f"compare.{key} is missing; a comparison has settings, methods and a reference. "
                "Start from compare=hospitals, pair or fedref."
            )
    targets = section.get("targets", ())
    if not isinstance(targets, list | tuple):
        raise FedpactError(f"compare.targets is {targets!r}; legal is a list, such as [0.8,0.9].")
    # null takes out a cell of a comparison that another one was made from.
    kept = {
        kind: {name: words for name, words in section.get(kind, {}).items() if words is not None}
        for kind in ("settings", "methods")
    }
    return Plan(**{**section, **kept, "targets": tuple(targets)})


def compare(plan: Plan, folder: RunFolder, overrides: list[str], hold: Hold) -> pd.DataFrame:
    """Hold every study of a plan; write compare.csv as they end, the summary and report at the end.

    Returns:
        The summary, a row a setting and method.
    """
    rows: list[dict[str, Any]] = []
    for setting, method, words in plan.cells:
        place = folder.path / setting / method
        hold([*overrides, *words], place)
        rows += [{"setting": setting, "method": method, **r} for r in _measured(plan, place)]
        table = pd.DataFrame(rows)
        write_whole(folder.path / "compare.csv", table.to_csv(index=False).encode())
    summary = summarise(plan, pd.DataFrame(rows)) if plan.watch else pd.DataFrame()
    verdicts = _verdicts(plan, folder.path)
    folder.write_json(
        "compare.json",
        {
            "reference": plan.reference,
            "last": plan.last,
            "measures": FIGURES,
            "summary": json.loads(summary.to_json(orient="records")),
            "verdicts": json.loads(verdicts.to_json(orient="records")),
        },
    )
    return summary if plan.watch else verdicts


def _measured(plan: Plan, place: Path) -> list[dict[str, Any]]:
    if not plan.watch:
        return []
    bytes_, cpu = traffic(place), seconds(place)
    rows = []
    for seed, curve in curves(place).items():
        row: dict[str, Any] = {
            "seed": seed,
            "last": 100 * curve.last(plan.last),
            "final": 100 * float(curve.accuracy[-1]),
            "forgetting": 100 * curve.forgetting,
            "log_loss": float(curve.log_loss[-plan.last :].mean()),
        }
        for target in plan.targets:
            row[f"rounds_to_{target:g}"] = curve.rounds_to(target)
        down, up = bytes_[seed]
        rows.append({**row, "bytes_down": down, "bytes_up": up, "cpu_seconds": cpu[seed]})
    return rows


def summarise(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """A row a setting and method: means, and paired differences to the reference with intervals.

    Intervals are 95 %, Student's t over seeds.
    """
    found = []
    for setting, method, _ in plan.cells:
        mine, base = (
            rows[(rows["setting"] == setting) & (rows["method"] == m)].set_index("seed")
            for m in (method, plan.reference)
        )
        row: dict[str, Any] = {"setting": setting, "method": method, "seeds": len(mine)}
        for name in FIGURES:
            values = mine[name].to_numpy(dtype=float)
            row[name] = float(values.mean())
            row[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
            difference = (mine[name] - base[name]).to_numpy(dtype=float)
            row[f"{name}_difference"] = float(difference.mean())
            row[f"{name}_half_width"] = half_width(difference)
        for target in plan.targets:
            reached = mine[f"rounds_to_{target:g}"].astype(float)
            row[f"rounds_to_{target:g}"] = (
                float(reached.median()) if reached.notna().all() else None
            )
            row[f"reached_{target:g}"] = int(reached.notna().sum())
        for name in ("bytes_down", "bytes_up", "cpu_seconds"):
            row[name] = float(mine[name].mean())
        found.append(row)
    return pd.DataFrame(found)


def half_width(differences: Array) -> float:
    """Half of the 95 % interval of a mean of paired differences (n,); nan for one."""
    n = len(differences)
    if n < 2:
        return math.nan
    return float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n))


def _verdicts(plan: Plan, root: Path) -> pd.DataFrame:
    """A row a setting, method and firm: what train-sharing is worth to it."""
    found = []
    for setting, method, _ in plan.cells:
        path = root / setting / method / "verdict.json"
        verdict = json.loads(path.read_text())
        alone = verdict["contracts"]["no_sharing"]["firms"]
        for firm, v in verdict["contracts"]["train_sharing"]["firms"].items():
            low, high = v["interval"]
            found.append(
                {
                    "setting": setting,
                    "method": method,
                    "firm": firm,
                    "own": alone[firm]["payoff"],
                    "payoff": v["payoff"],
                    "gain": v["gain"],
                    "low": low,
                    "high": high,
                    "decision": v["decision"],
                }
            )
    return pd.DataFrame(found)


def interval_names(plan: Plan, root: Path) -> str:
    """What to call the intervals of a comparison's verdicts: their level, where it is the same."""
    paths = [root / setting / method / "verdict.json" for setting, method, _ in plan.cells]
    names = {interval_name(json.loads(path.read_text())["interval"]) for path in paths}
    return names.pop() if len(names) == 1 else "interval"
