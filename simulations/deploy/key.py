"""`python -m simulations.deploy key --firm NAME`: a firm makes its own keys."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from parties.exchange import FedpactError
from parties.reuse.signing import make_keys
from simulations.build import sha256
from simulations.deploy.certificates import make_node_keys
from simulations.deploy.layout import FirmFolder, find_firm


def make_firm_keys(folder: FirmFolder) -> None:
    """The key of a firm's node and the key with which it signs; none is ever replaced."""
    there = [key for key in (folder.node_key, folder.signing_key) if key.exists()]
    if there:
        raise FedpactError(
            f"There is a key already: {', '.join(map(str, there))}. A key is never replaced. Move "
            f"node.key, node.pub, sign.key and sign.pub away first{_log_too(folder)}."
        )
    if folder.audit.exists():
        raise FedpactError(
            f"{folder.audit} is signed with the key that you had before; a desk goes on with a log "
            "of its own key only. Move audit.jsonl and audit.head away first, and keep the old "
            "sign.pub with them: it is what verifies them."
        )
    make_node_keys(folder.node_key, folder.node_pub)
    make_keys(folder.path, folder.signing_key.stem)


def _log_too(folder: FirmFolder) -> str:
    if not folder.audit.exists():
        return ""
    return (
        ", and audit.jsonl and audit.head with them, for the old sign.pub verifies these: mkdir "
        "old && mv node.key node.pub sign.key sign.pub audit.jsonl audit.head old/"
    )


def main(arguments: Sequence[str]) -> int:
    """Make them, and say whom to send which."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.deploy key",
        description="Make a firm's own keys, so that nobody else ever held them.",
    )
    parser.add_argument("--firm", required=True, metavar="NAME")
    parser.add_argument("--folder", type=Path, help="the firm's folder (default: it is looked for)")
    chosen = parser.parse_args(arguments)
    folder = find_firm(chosen.firm, chosen.folder)
    make_firm_keys(folder)
    lines = [f"Keys of {chosen.firm} in {folder.path}. node.key and sign.key stay there."]
    lines += ["Send the operator these two, and read it their sha256 by telephone:"]
    for public in (folder.node_pub, folder.signing_pub):
        lines.append(f"  {public.name}  {sha256(public.read_text())}")
    lines += [f"It puts them in its place as nodes/{chosen.firm}.pub and keys/{chosen.firm}.pub;"]
    lines += [f"the other firms put {folder.signing_pub.name} in theirs as keys/{chosen.firm}.pub."]
    lines += ["Their desks, yours and ./run.sh read keys when they start."]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
