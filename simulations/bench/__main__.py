"""`python -m simulations.bench rounds` and `game`: what engines and games cost, as ratios."""

from __future__ import annotations

import argparse
import sys

from parties.exchange import FedpactError


def main() -> None:
    """Measure engines (`rounds`) or the contract game (`game`) and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m simulations.bench", description=__doc__)
    whats = parser.add_subparsers(dest="what", required=True)
    rounds = whats.add_parser("rounds", help="no-op rounds a second of each engine")
    rounds.add_argument("--firms", type=int, default=2)
    game = whats.add_parser("game", help="points, games and episodes a second of each solver")
    game.add_argument("--points", type=int, default=200_000, help="random markets to solve")
    game.add_argument("--no-compile", action="store_true", help="leave out torch.compile (minutes)")
    for command, repeats in ((rounds, 3), (game, 5)):
        command.add_argument("--repeats", type=int, default=repeats)
    chosen = parser.parse_args()
    if chosen.repeats < 1 or getattr(chosen, "firms", 1) < 1:
        parser.error("--firms and --repeats are whole numbers >= 1")
    if chosen.what == "game" and chosen.points < 100:
        parser.error("--points is a whole number >= 100")
    try:
        if chosen.what == "rounds":
            from simulations.bench.rounds import report

            report(chosen.firms, chosen.repeats)
        else:
            from simulations.bench.game import report as report_game

            report_game(chosen.points, chosen.repeats, compiled=not chosen.no_compile)
    except FedpactError as fault:
        sys.exit(f"bench: {fault}")


if __name__ == "__main__":
    main()
