"""`python -m simulations.game`: solve and explain contract games exactly, and map them.

solve FILE.json    rows of games in, the same rows with their exact answers out (JSON)
explain FILE.json  rows in words: what each contract pays, and why it is signed or not
map                which contracts firms would sign, over two parameters (PNG, HTML, parquet)

FILE.json holds one row or a list of rows {"id": ..., "setting": ..., "params": {...}}; it may be
the folder of a run, whose game.json has the measured joint table, or - for standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from parties.exchange import FedpactError
from server.game.dominance import DEFINITIONS, TIMINGS, Reading
from simulations.game import maps
from simulations.game.rows import Row, answer, read_rows, readings
from simulations.game.words import explain


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.game",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    solve = commands.add_parser("solve", help="exact answers as JSON")
    solve.add_argument("file", metavar="FILE.json")
    solve.add_argument("--more", action="store_true", help="equilibria, welfare, honesty, reasons")
    told = commands.add_parser("explain", help="rows in words")
    told.add_argument("file", metavar="FILE.json")
    told.add_argument("--id", help="one row only")
    for command in (solve, told):
        command.add_argument("--definition", choices=DEFINITIONS, help="of dominance")
        command.add_argument("--timing", choices=TIMINGS, help="of dominance")
    maps.add_arguments(commands.add_parser("map", help="regions over two parameters"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 for a mistake that a person can mend."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "solve":
            rows, many = read_rows(chosen.file)
            asked = readings(chosen.definition, chosen.timing)
            found = [answer(row, asked, chosen.more) for row in rows]
            print(json.dumps(found if many else found[0], indent=2))
        elif chosen.command == "explain":
            reading = Reading(chosen.definition or "paper", chosen.timing or "interim")
            rows = _chosen(read_rows(chosen.file)[0], chosen.id)
            print("\n\n\n".join(explain(row, reading) for row in rows))
        else:
            print("\n".join(maps.told(maps.run(chosen))))
    except FedpactError as fault:
        sys.stderr.write(f"fedpact: {fault}\n")
        return 2
    except BrokenPipeError:  # `| head` is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _chosen(rows: list[Row], wanted: str | None) -> list[Row]:
    ids = [str(row.get("id", number)) for number, row in enumerate(rows)]
    if wanted is None:
        return rows
    if wanted in ids:
        return [rows[ids.index(wanted)]]
    raise FedpactError(f"--id is {wanted!r}; this file has the rows {', '.join(ids)}.")


if __name__ == "__main__":
    sys.exit(main())
