"""Rows: one contract game each, as JSON in and JSON out. Numbers are exact fractions as strings."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from parties.exchange import FedpactError
from server.game.bargain import Transfer, TwoPart, transfer, two_part, welfare
from server.game.bayes import Component
from server.game.dominance import GOLDEN, READINGS, Reading, Solved
from server.game.honesty import misreport
from server.game.mixed import mixed_equilibria
from server.game.samples import paired
from server.game.settings import correlation, hypotheses, table, told
from server.game.sight import sights
from server.game.worlds import Setting
from simulations.mistakes import did_you_mean

Row = dict[str, Any]
FIRMS = ("firm1", "firm2")
MOST_LISTED = 100  # pure equilibria of a component that are written out
KEYS = ("id", "firms", "setting", "params", "contracts", "note")
ANSWERS = (  # of a row that was answered before; they are worked out again
    *("payoffs", "dominance_solvable", "unique_pure", "trade_probability", "ir", "irpo"),
    *("transfers", "potential", "interim", "equilibria", "welfare", "honesty", "uniquely_irpo"),
    *("objections", "clients_needed"),
)
# The names that rows use, for the names that Python allows.
RENAMED = {"lam": "lambda", "joint": "table"}
SETTINGS: Mapping[str, Callable[..., Setting]] = {
    "correlation": correlation,
    "hypotheses": hypotheses,
    "table": table,
    "told": told,
}


def read_rows(source: str) -> tuple[list[Row], bool]:
    """The rows of a file, of a run's folder (its game.json) or of standard input ("-").

    Returns:
        The rows, and whether they were a list (rather than a single row).

    Raises:
        FedpactError: there is no such file, or it holds no rows.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "game.json"
    try:
        text = sys.stdin.read() if source == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise FedpactError(
            f"{path} cannot be read ({fault}). Give a JSON file of rows, the folder of a run of a "
            "contest (it has a game.json), or - for standard input."
        ) from fault
    try:
        found = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as fault:
        raise FedpactError(
            f"{source} is not JSON: {fault}. Legal is one row, or a list of rows, with the keys "
            "id, setting and params."
        ) from fault
    rows = found if isinstance(found, list) else [found]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise FedpactError(
            f"{source} holds no rows. Legal is one row, or a list of rows, with the keys id, "
            "setting and params."
        )
    return rows, isinstance(found, list)


def solved_row(row: Row) -> Solved:
    """The game of a row.

    Raises:
        FedpactError: the row lacks something, or a number in it is out of its range.
    """
    name = str(row.get("id", "?"))
    try:
        return Solved(_setting(row), sights(row.get("contracts")))
    except FedpactError as fault:
        raise FedpactError(f"Row {name}: {fault}") from fault


def names_of(row: Row) -> tuple[str, str]:
    """What a row calls its firms; "firm 1" and "firm 2" where it does not say."""
    names = row.get("firms", ["firm 1", "firm 2"])
    if not isinstance(names, list) or len(names) != 2 or len(set(map(str, names))) != 2:
        raise FedpactError(f"firms is {names!r}; legal are two different names.")
    return str(names[0]), str(names[1])


def _setting(row: Row) -> Setting:
    for key in row:
        if key not in (*KEYS, *ANSWERS):
            raise FedpactError(f"a row has no {key!r}. {did_you_mean(key, list(KEYS))}")
    kind, params = str(row.get("setting")), row.get("params")
    if kind not in SETTINGS:
        raise FedpactError(
            f"setting is {row.get('setting')!r}. {did_you_mean(kind, list(SETTINGS))}"
        )
    if not isinstance(params, dict):
        raise FedpactError(f"params is {params!r}; legal is an object of the {kind} setting.")
    known = {RENAMED.get(n, n): p for n, p in inspect.signature(SETTINGS[kind]).parameters.items()}
    for key in params:
        if key not in known:
            raise FedpactError(f"params has no {key!r}. {did_you_mean(key, list(known))}")
    missing = [n for n, p in known.items() if p.default is p.empty and n not in params]
    if missing:
        raise FedpactError(
            f"params lacks {', '.join(missing)}; a {kind} row has {', '.join(known)}."
        )
    arguments = {parameter.name: params[n] for n, parameter in known.items() if n in params}
    if kind == "correlation":
        arguments["worlds"] = [_world(w) for w in _list(params["worlds"], "worlds")]
    for name in ("R", "C"):
        if name in arguments:
            arguments[name] = _list(arguments[name], name)
    if kind in ("table", "told"):
        _check_table(arguments)
    return SETTINGS[kind](**arguments)


def _world(world: Any) -> tuple[Any, Any]:
    if not isinstance(world, dict) or set(world) != {"weight", "rho"}:
        raise FedpactError(f'a world is {world!r}; legal is {{"weight": ..., "rho": ...}}.')
    return world["weight"], world["rho"]


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise FedpactError(f"{name} is {value!r}; legal is a list.")
    return value


def _check_table(arguments: Mapping[str, Any]) -> None:
    for plane in _list(arguments["joint"], "table"):
        for line in _list(plane, "table[t]"):
            _list(line, "table[t][s1]")
    if not isinstance(arguments.get("prior", {}), dict | None):
        raise FedpactError(
            f"prior is {arguments['prior']!r}; legal is an object coupling -> weight."
        )


def readings(definition: str | None, timing: str | None) -> tuple[Reading, ...]:
    """The readings asked for; those of the golden rows where nothing is."""
    if definition is None and timing is None:
        return GOLDEN
    return tuple(
        r for r in READINGS if definition in (None, r.definition) and timing in (None, r.timing)
    )


def answer(row: Row, asked: Sequence[Reading] = GOLDEN, more: bool = False) -> Row:
    """A row with its answers, in the shape of the golden rows.

    more: also equilibria, welfare, honesty, and why each contract is not signed.
    """
    solved = solved_row(row)
    games = solved.games
    standings = {reading.name: solved.standings(reading) for reading in asked}
    kept = {key: row[key] for key in KEYS if key in row}
    found: Row = kept | {
        "payoffs": {name: _texts(solved.payoffs(name)) for name in games},
        "dominance_solvable": {name: game.dominance_solvable for name, game in games.items()},
        "unique_pure": {name: game.unique_pure for name, game in games.items()},
        "trade_probability": {name: str(solved.trade_probability(name)) for name in games},
        "ir": {
            reading: [name for name, s in standing.items() if s.individually_rational]
            for reading, standing in standings.items()
        },
        "irpo": {
            reading: [name for name, s in standing.items() if s.irpo]
            for reading, standing in standings.items()
        },
        "transfers": {
            name: _transfer(transfer(solved, name), two_part(solved, name)) for name in games
        },
    }
    return found | _more(solved, asked) if more else found


def _transfer(payment: Transfer, parts: TwoPart | None) -> Row:
    """Payments from firm 2 to firm 1, a client."""
    return {
        "exists": payment.exists,
        "interval": _texts((payment.low, payment.high)) if payment.exists else None,
        "nash": None if payment.nash is None else str(payment.nash),
        "surplus": str(payment.surplus),
        "two_part": None
        if parts is None
        else {
            "payer": FIRMS[parts.payer],
            "fee": str(parts.fee),
            "price_a_prediction": str(parts.price),
            "price_limit": str(parts.limit),
        },
    }


def _more(solved: Solved, asked: Sequence[Reading]) -> Row:
    games = solved.games
    searches = {
        name: [mixed_equilibria(c) for c in game.components] for name, game in games.items()
    }
    return {
        "potential": {name: str(solved.potential(name)) for name in games},
        "interim": {
            name: {
                firm: {label(z): str(u) for z, u in solved.interim(name, number).items()}
                for number, firm in enumerate(FIRMS)
            }
            for name in games
        },
        "equilibria": {
            name: {
                "components": [
                    {
                        "information_sets": [_seen(c, n) for n in range(len(c.infos))],
                        "eliminated": [
                            {"round": e.round, "firm": FIRMS[e.firm], "action": e.action}
                            | {"seen": {k: label(v) for k, v in e.seen}}
                            for e in c.eliminations
                        ],
                        "pure": [list(e.acts) for e in c.equilibria[:MOST_LISTED]],
                        "pure_count": len(c.equilibria),
                        "mixed": None
                        if search is None
                        else [_texts(e.acts) for e in search.equilibria],
                        "mixed_complete": search is not None and search.complete,
                    }
                    for c, search in zip(game.components, searches[name], strict=True)
                ],
            }
            for name, game in games.items()
        },
        "welfare": {
            name: {
                reading.name: {"total": str(w.total), "lowers_trade": w.lowers_trade}
                for reading in asked
                for w in [welfare(solved, name, reading)]
            }
            for name in games
        },
        "clients_needed": {
            name: {firm: paired(solved, name, number).needed() for number, firm in enumerate(FIRMS)}
            for name in games
        },
        "honesty": {
            name: {
                firm: {"gain": str(lie.gain), "audit": str(lie.audit)}
                for number, firm in enumerate(FIRMS)
                for lie in [misreport(solved, name, number)]
            }
            for name in games
        },
        "uniquely_irpo": {
            reading.name: next(
                (name for name, s in solved.standings(reading).items() if s.alone), None
            )
            for reading in asked
        },
        "objections": {
            reading.name: {
                name: {
                    "firm": None if o.firm is None else FIRMS[o.firm],
                    "occasion": None if o.occasion is None else list(map(label, o.occasion)),
                    "offered": str(o.offered),
                    "demanded": str(o.demanded),
                }
                for name, s in solved.standings(reading).items()
                if (o := s.objection) is not None
            }
            for reading in asked
        },
    }


def _seen(component: Component, place: int) -> dict[str, str]:
    """An information set: whose it is, and what it sees."""
    seen = {k: label(v) for k, v in component.infos[place]}
    return {"firm": FIRMS[component.firm(place)], **seen}


def label(z: Hashable) -> str:
    """A training observation as text: the labelled signals it is made of.

    >>> label(((1, 0), (0, 0))), label("I"), label("")
    ('t=1 s=0, t=0 s=0', 'I', 'nothing')
    """
    if isinstance(z, tuple):
        return ", ".join(f"t={t} s={s}" for t, s in z) or "nothing"
    return str(z) or "nothing"


def _texts(values: Sequence[Fraction]) -> list[str]:
    return [str(v) for v in values]
