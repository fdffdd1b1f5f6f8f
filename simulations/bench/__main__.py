"""`python -m simulations.bench WHAT`: measures engines, deployments, sweeps, the game and more."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from parties.exchange import FedpactError


def main() -> None:
    """Measure engines, batches, sweeps, the game or canonicalizers, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m simulations.bench", description=__doc__)
    whats = parser.add_subparsers(dest="what", required=True)
    rounds = whats.add_parser("rounds", help="no-op rounds a second of each engine")
    rounds.add_argument("--firms", type=int, default=2)
    batched = whats.add_parser("batched", help="training in batches beside the plain loop")
    batched.add_argument("--firms", type=int, default=50, help="of the study")
    batched.add_argument("--rounds", type=int, default=20, help="of the study")
    masks = whats.add_parser("masks", help="a round under masks beside a plain one")
    sweep = whats.add_parser("sweep", help="studies a second beside Hydra's basic launcher")
    whats.add_parser("deployment", help="an exchange with real nodes, on this machine (minutes)")
    game = whats.add_parser("game", help="points, games and episodes a second of each solver")
    game.add_argument("--points", type=int, default=200_000, help="random markets to solve")
    game.add_argument("--no-compile", action="store_true", help="leave out torch.compile (minutes)")
    poses = whats.add_parser("canonicalize", help="canonicalizers beside equiadapt's")
    poses.add_argument("--images", type=int, default=512, help="random images to compare on")
    poses.add_argument("--peer", type=Path, help="interpreter that has equiadapt")
    commands = ((rounds, 3), (batched, 5), (masks, 5), (sweep, 3), (game, 5), (poses, 7))
    for command, repeats in commands:
        command.add_argument("--repeats", type=int, default=repeats)
    chosen = parser.parse_args()
    if getattr(chosen, "repeats", 1) < 1 or getattr(chosen, "firms", 1) < 1:
        parser.error("--firms and --repeats are whole numbers >= 1")
    if chosen.what == "batched" and (chosen.firms < 2 or chosen.rounds < 1):
        parser.error("--firms is a whole number >= 2, --rounds one >= 1")
    if chosen.what == "canonicalize" and chosen.images < 1:
        parser.error("--images is a whole number >= 1")
    if chosen.what == "game" and chosen.points < 100:
        parser.error("--points is a whole number >= 100")
    try:
        if chosen.what == "rounds":
            from simulations.bench.rounds import report

            report(chosen.firms, chosen.repeats)
        elif chosen.what == "batched":
            from simulations.bench.batched import report as report_batched

            report_batched(chosen.firms, chosen.rounds, chosen.repeats)
        elif chosen.what == "masks":
            from simulations.bench.masks import report as report_masks

            report_masks(chosen.repeats)
        elif chosen.what == "sweep":
            from simulations.bench.sweep import report as report_sweep

            report_sweep(chosen.repeats)
        elif chosen.what == "deployment":
            from simulations.bench.deployment import report as report_deployment

            report_deployment()
        elif chosen.what == "canonicalize":
            from simulations.bench.canonicalize import PEER
            from simulations.bench.canonicalize import report as report_poses

            report_poses(chosen.images, chosen.repeats, chosen.peer or PEER)
        else:
            from simulations.bench.game import report as report_game

            report_game(chosen.points, chosen.repeats, compiled=not chosen.no_compile)
    except FedpactError as fault:
        sys.exit(f"bench: {fault}")


if __name__ == "__main__":
    main()
