"""One row in words: what each contract pays, and why it is signed or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from server.game.bargain import transfer, two_part, welfare
from server.game.dominance import BASELINE, Objection, Reading, Solved, Standing
from server.game.honesty import misreport
from server.game.sight import Seen
from simulations.game.rows import Row, label, names_of, solved_row

Names = tuple[str, str]
MOST_READABLE = 8  # information sets of an equilibrium that is told in words
SELECTED = "In the selected equilibria, on average,"


def explain(row: Row, reading: Reading) -> str:
    """A row in words, under one reading of "dominates"."""
    solved, names = solved_row(row), names_of(row)
    standings = solved.standings(reading)
    params = ", ".join(f"{k}={_short(v)}" for k, v in row["params"].items() if k != "table")
    lines = [f"{row.get('id', 'row')}: setting {row['setting']}, {params}"]
    if "note" in row:
        lines += ["", str(row["note"])]
    if "table" in row["params"]:
        lines += _joint(solved, names)
    lines += ["", *_payoffs(solved, standings, names), "", *_read_as(reading)]
    for name, standing in standings.items():
        lines += ["", *_contract(solved, name, standing, reading, names)]
    return "\n".join(lines)


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[" + ", ".join(f"rho {w['rho']} with weight {w['weight']}" for w in value) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)


def _joint(solved: Solved, names: Names) -> list[str]:
    """P(t, s1, s2) at the prior's mean, a line a pair of signals."""
    rows: list[tuple[str, ...]] = [(*names, "mean P(t=0)", "mean P(t=1)")]
    joint: dict[tuple[int, int], list[Fraction]] = {}
    for cell, t, probability in solved.setting.events:
        joint.setdefault((cell.s1, cell.s2), [Fraction(0), Fraction(0)])[t] += probability
    for (s1, s2), masses in sorted(joint.items()):
        rows.append((f"s1={s1}", f"s2={s2}", *(f"{float(mass):.4f}" for mass in masses)))
    return ["", *_aligned(rows)]


def _payoffs(solved: Solved, standings: dict[str, Standing], names: Names) -> list[str]:
    head = ("contract", *names, "either plays 1", "rational", "Pareto", "IRPO")
    rows: list[tuple[str, ...]] = [head]
    for name, s in standings.items():
        one, two = solved.payoffs(name)
        flags = (s.individually_rational, s.pareto_optimal, s.irpo)
        trade = number(solved.trade_probability(name))
        rows.append((name, number(one), number(two), trade, *("yes" if f else "no" for f in flags)))
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    return ["  ".join(v.ljust(w) for v, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def number(value: Fraction) -> str:
    """A number as its fraction, where that is short, and as a decimal.

    >>> number(Fraction(7, 40)), number(Fraction(1, 2)), number(Fraction(0))
    ('7/40 (0.1750)', '1/2 (0.5000)', '0')
    """
    decimal = f"{float(value):.4f}"
    if abs(value) < Fraction(1, 2000) and value:
        decimal = f"{float(value):.3g}"
    if value.denominator == 1:
        return str(value)
    return f"{value} ({decimal})" if value.denominator <= 1000 else decimal


def _read_as(reading: Reading) -> list[str]:
    of = (
        "some equilibrium of it gives both firms at least what every equilibrium of the other does"
        if reading.definition == "paper"
        else "its selected equilibrium gives both firms at least what the other's does"
    )
    when = (
        "for each pair of training observations, each firm knowing its own"
        if reading.timing == "interim"
        else "before anything is observed"
    )
    return [f"A contract dominates another if {of}, {when}."]


def _contract(
    solved: Solved, name: str, standing: Standing, reading: Reading, names: Names
) -> list[str]:
    lines = [f"{name}: {_headline(name, standing)}"]
    if name == BASELINE:
        lines.append("  It is what firms do without a contract.")
    if standing.objection is not None:
        lines += [f"  {line}" for line in _objection(solved, standing.objection, names)]
    for other in standing.beaten_by:
        lines.append(f"  {other} is at least as good for both firms, and not the other way round.")
    if name != BASELINE:
        lines += [f"  {line}" for line in _payment(solved, name, names)]
    if not solved.games[name].unique_pure:
        count = 1
        for component in solved.games[name].components:
            count *= len(component.equilibria)
        lines.append(f"  It has {count:,} pure equilibria; payoffs are those of the selected one.")
    lines += [f"  {line}" for line in _lies(solved, name, names)]
    if welfare(solved, name, reading).lowers_trade:
        lines.append(
            "  For a regulator: the firms would sign, but action 1 is taken for fewer clients than "
            f"without sharing ({number(solved.trade_probability(name))} against "
            f"{number(solved.trade_probability(BASELINE))})."
        )
    return lines


def _headline(name: str, standing: Standing) -> str:
    if standing.irpo:
        only = ", and no other contract is" if standing.alone else ""
        return f"individually rational and Pareto-optimal (IRPO){only}."
    if not standing.individually_rational:
        return "would not be signed."
    if name == BASELINE:
        return "dominated."
    return "would be signed, but there is a better contract for both."


def _objection(solved: Solved, objection: Objection, names: Names) -> list[str]:
    when = ""
    if objection.occasion is not None and any(objection.occasion):
        firm = objection.firm or 0
        when = f" when its training observation is {label(objection.occasion[firm])}"
    offered, demanded = number(objection.offered), number(objection.demanded)
    if objection.firm is None:
        first = (
            f"No single equilibrium contents both{when}: where {names[1]} gets its due, {names[0]} "
            f"gets {offered}, and {objection.over} may give it {demanded}."
        )
        firm = 0
    else:
        firm = objection.firm
        first = (
            f"{_start(names[firm])} refuses{when}: it would get {offered} at most, and "
            f"{objection.over} may give it {demanded}."
        )
    return [first, *_equilibrium(solved, objection, names)]


def _equilibrium(solved: Solved, objection: Objection, names: Names) -> list[str]:
    """The equilibrium that the objection points to, where it is short enough to read."""
    game = solved.games[objection.over]
    if sum(len(c.infos) for c in game.components) > MOST_READABLE:
        return []
    acts = game.actions(objection.equilibrium)
    parts = [_strategy({seen: a for (f, seen), a in acts.items() if f == firm}) for firm in (0, 1)]
    return [
        f"That is the equilibrium of {objection.over} in which {names[0]} {parts[0]}, and "
        f"{names[1]} {parts[1]}."
    ]


def _strategy(acts: Mapping[Seen, int]) -> str:
    if len(set(acts.values())) == 1:
        return f"always plays {next(iter(acts.values()))}"
    ones = " or ".join(_seen(seen) for seen, act in acts.items() if act)
    return f"plays 1 on {ones}, else 0"


def _seen(seen: Seen) -> str:
    return " and ".join(f"{k}={label(v)}" for k, v in seen if v != "")


def _payment(solved: Solved, name: str, names: Names) -> list[str]:
    payment = transfer(solved, name)
    if not payment.exists:
        return [
            f"{SELECTED} no side payment leaves both as well off as alone: it takes "
            f"{number(-payment.surplus)} a client from what the two earn together."
        ]
    if payment.low <= 0 <= payment.high and payment.nash == 0:
        return []
    nash = payment.nash or Fraction(0)
    payer, payee = names[::-1] if nash >= 0 else names
    ends = sorted((abs(payment.low), abs(payment.high)))
    if payment.low < 0 < payment.high:
        text = (
            f"{SELECTED} both gain without any payment; {payer} paying {payee} "
            f"{number(abs(nash))} a client would split the surplus equally."
        )
    elif payment.surplus == 0:
        text = (
            f"{SELECTED} a payment of exactly {number(abs(nash))} a client from {payer} to {payee} "
            "leaves both as well off as alone; there is no surplus to split."
        )
    else:
        text = (
            f"{SELECTED} a payment of {number(ends[0])} to {number(ends[1])} a client from {payer} "
            f"to {payee} leaves neither worse off than alone; {number(abs(nash))} splits the "
            "surplus equally."
        )
    lines = [text]
    parts = two_part(solved, name)
    if parts is not None and parts.price:
        fee = f" and a fixed fee of {number(parts.fee)} a client" if parts.fee else ""
        lines.append(
            f"Paid by use: {number(parts.price)} a prediction{fee}; above "
            f"{number(parts.limit)} {names[parts.payer]} would no longer ask for every client."
        )
    return lines


def _lies(solved: Solved, name: str, names: Names) -> list[str]:
    lines = []
    for firm in (0, 1):
        lie = misreport(solved, name, firm)
        if lie.gain > 0:
            lines.append(
                f"{_start(names[firm])} could gain {number(lie.gain)} by misreporting; an "
                "audit whose probability times penalty is at least "
                f"{number(lie.audit)} a false report removes that."
            )
    return lines


def _start(name: str) -> str:
    """A firm at the start of a sentence; names that people gave stay as they are."""
    return name.replace("firm ", "Firm ", 1) if name.startswith("firm ") else name
