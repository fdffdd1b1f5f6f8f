"""`python -m simulations.bench WHAT`: measures engines, deployments, sweeps, the game and more.

rounds            no-op rounds a second of each engine
clients           a firm's training with each engine, beside Flower, pfl and a plain loop (minutes)
batched           training in batches beside the plain loop
masks             a round under masks beside a plain one
sweep             studies a second beside Hydra's basic launcher
deployment        an exchange with real nodes, on this machine (minutes)
game              points, games and episodes a second of each solver
canonicalize      canonicalizers beside equiadapt's
arm               a forecast of retraining beside the retraining

Each prints a line a figure. With --out FOLDER it also writes bench.md, bench.html (tables and
figures) and bench.json there; further commands with the same folder join them. Every command has
--help.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from difflib import get_close_matches
from pathlib import Path

from parties.exchange import FedpactError
from simulations.bench.tree import end_children

# Imported late: each needs other libraries, some of which take seconds. Each has
# add_arguments(parser) and rows(arguments) -> list[Row], which prints its lines as it measures.
COMMANDS = {
    name: f"simulations.bench.{name}"
    for name in (
        *(
            "rounds",
            "clients",
            "batched",
            "masks",
            "sweep",
            "deployment",
            "game",
            "canonicalize",
            "arm",
        ),
    )
}


def main() -> None:
    """Measure one thing, print a line a figure, and put the rows into a report if one is asked."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__, end="")
        return
    # What it started is ended, and its folders are removed, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, 1)
            raise FedpactError(
                f"there is no command {name!r}; legal are {', '.join(COMMANDS)}. "
                + (f"Did you mean {near[0]}?" if near else "See --help.")
            )
        command = importlib.import_module(COMMANDS[name])
        about = str(command.__doc__).partition("\n")[0]
        parser = argparse.ArgumentParser(
            f"python -m simulations.bench {name}", description=about, allow_abbrev=False
        )
        command.add_arguments(parser)
        parser.add_argument("--out", type=Path, help="folder of the report")
        chosen = parser.parse_args(words)
        rows = command.rows(chosen)
        if chosen.out is not None:
            from simulations.bench.report import add_to_report

            print(f"report: {add_to_report(chosen.out, name, words, about, rows)}")
    except FedpactError as fault:
        sys.exit(f"bench: {fault}")
    except KeyboardInterrupt:
        end_children()
        print("bench: stopped; nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
