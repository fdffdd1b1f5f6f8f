"""The journal of a sweep: a line a finished job, appended as it ends, never changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

from parties.exchange import FedpactError
from parties.files import write_whole

log = logging.getLogger("fedpact")

SIGN = 16  # characters of a line's own hash


@final
class Journal:
    """`jobs.jsonl`: hash, blank, then key and row of one job as JSON.

    A line is whole or not there: one that was cut short by a crash or a full disk is dropped when
    the journal is opened, and its job is held again.

    Raises:
        FedpactError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        try:
            content = path.read_bytes() if path.exists() else b""
            lines = content.splitlines(keepends=True)
            kept = [line for line in lines if line.endswith(b"\n") and self._read(line[:-1])]
            if len(kept) < len(lines):
                log.warning("%s: %d damaged lines dropped", path, len(lines) - len(kept))
                write_whole(path, b"".join(kept))
            self._file = path.open("ab", buffering=0)
        except OSError as fault:
            raise unwritable(path, fault) from fault

    def add(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append finished jobs, and wait until they are on the disk."""
        rows = list(rows)
        lines = [_line({"key": key, "row": row}) for key, row in rows]
        try:
            for line in lines:
                written = self._file.write(line)
                if written != len(line):  # the rest has no room
                    raise OSError(28, os.strerror(28))
            os.fsync(self._file.fileno())
        except OSError as fault:
            raise unwritable(self.path, fault) from fault
        for line in lines:
            self._read(line.rstrip(b"\n"))

    def close(self) -> None:
        self._file.close()

    def _read(self, line: bytes) -> bool:
        """Take a line's job into the rows; false for a damaged one."""
        sign, _, text = line.partition(b" ")
        if hashlib.sha256(text).hexdigest()[:SIGN].encode() != sign:
            return False
        told = json.loads(text)
        self.rows[told["key"]] = told["row"]  # of a job that was held again, the last
        return True


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value).encode()
    return hashlib.sha256(text).hexdigest()[:SIGN].encode() + b" " + text + b"\n"


def unwritable(path: Path, fault: OSError) -> FedpactError:
    """What to tell a person whose disk is full or read-only."""
    return FedpactError(
        f"{path} cannot be written ({fault.strerror}). What is finished is kept. Make room or "
        "choose another folder with run_dir=..., then run the same command again: it does what is "
        "missing."
    )
