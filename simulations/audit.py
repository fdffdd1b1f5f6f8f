"""`python -m simulations.audit`: what a firm received and sent, and whether its log was altered.

verify FILE [--key sign.pub]   is the log as it was written? Else the first line that is not
show FILE                      what left this firm, by contract and type; what it refused

FILE is the desk's audit.jsonl, with audit.head beside it; --key the firm's public key, without
which a log and a head that were both written anew are not noticed. Exit status 1 for a log that was
altered, 2 for a mistake that a person can mend.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from parties.desk.audit import (
    NOTED,
    RECEIVED,
    REFUSED,
    SENT,
    AlteredError,
    Checked,
    Line,
    read,
    verify,
)
from parties.exchange import FedpactError

MOST_SHOWN = 20  # refusals


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("verify", help="find the first altered line")
    check.add_argument("file", metavar="FILE", type=Path)
    check.add_argument("--key", metavar="sign.pub", type=Path, help="the firm's public key")
    shown = commands.add_parser("show", help="what left this firm")
    shown.add_argument("file", metavar="FILE", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where a log was altered, 2 for a mistake that a person can mend."""
    chosen = _parser().parse_args(arguments)
    try:
        checked = verify(chosen.file, getattr(chosen, "key", None))
        if chosen.command == "show":
            print("\n".join(_shown(list(read(chosen.file)))))
        else:
            print(_told(checked))
    except AlteredError as fault:
        print(f"{chosen.file}: {fault}")
        return 1
    except FedpactError as fault:
        sys.stderr.write(f"fedpact: {fault}\n")
        return 2
    except BrokenPipeError:  # `| head` is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _told(checked: Checked) -> str:
    told = f"{checked.lines} lines, whole"
    if checked.behind:
        told += "; the head is one line behind, as a crash leaves it (the desk mends it)"
    if checked.torn:
        told += "; a torn line follows, as a crash leaves it (the desk cuts it off)"
    return told


def _shown(lines: Sequence[Line]) -> list[str]:
    """Tables of what left and of what was asked, and the last refusals with their reasons."""
    if not lines:
        return ["nothing was asked of this firm yet"]
    told = [f"{lines[0].time} to {lines[-1].time}, {len(lines)} lines", ""]
    left = (line for line in lines if line.direction in (SENT, REFUSED))
    told += ["What left this firm", *_table(left)]
    told += ["", "What it was asked", *_table(line for line in lines if line.direction == RECEIVED)]
    refused = [line for line in lines if line.direction == REFUSED]
    if refused:
        told += ["", f"What it refused ({len(refused)})"]
        for line in refused[-MOST_SHOWN:]:
            told.append(f"  line {line.n}  {_plain(line.contract) or '-'}  {_plain(line.note)}")
    noted = [line for line in lines if line.direction == NOTED]
    if noted:
        told += ["", "What the desk noted", *(f"  line {x.n}  {_plain(x.note)}" for x in noted)]
    return told


def _table(lines: Iterable[Line]) -> list[str]:
    """A row a contract and type: messages, bytes, and the largest one's."""
    count, size = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    most: dict[tuple[str, str], int] = {}
    for line in lines:
        key = (_plain(line.contract) or "-", line.type)
        count[key] += 1
        size[key] += line.bytes
        most[key] = max(most.get(key, 0), line.bytes)
    if not count:
        return ["  nothing"]
    rows = [("contract", "type", "messages", "bytes", "largest")]
    rows += [(*key, str(count[key]), f"{size[key]:,}", f"{most[key]:,}") for key in sorted(count)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _plain(text: str) -> str:
    """Without what would command a terminal: a contract's name is the operator's word."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main())
