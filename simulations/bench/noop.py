"""A firm, and two Flower apps, that do nothing: what a round costs an engine, and nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from parties.exchange import Answer, Refusal, Request
from parties.memory import Memory

client = ClientApp()
server = ServerApp()


@final
class NoFirm:
    """Answers everything with next to nothing."""

    def answer(self, request: Request, memory: Memory) -> Answer:
        return Refusal("no-op")


def firm(name: str) -> NoFirm:
    """A firm of this name."""
    return NoFirm()


@client.query()
def _answer(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@server.main()
def _main(grid: Grid, context: Context) -> None:
    """Writes the seconds of each of `rounds` rounds to `result` (after one round of warm-up)."""
    firms, rounds = int(context.run_config["firms"]), int(context.run_config["rounds"])
    while len(list(grid.get_node_ids())) < firms:
        time.sleep(0.05)
    seconds = [one_round(grid) for _ in range(rounds + 1)][1:]
    Path(str(context.run_config["result"])).write_text(json.dumps(seconds))


def one_round(grid: Grid) -> float:
    """Ask every node once; seconds."""
    started = time.perf_counter()
    content = RecordDict({"c": ConfigRecord({"round": 1})})
    nodes = sorted(grid.get_node_ids())
    replies = list(grid.send_and_receive([Message(content, n, "query") for n in nodes]))
    if len(replies) != len(nodes) or any(r.has_error() for r in replies):
        raise RuntimeError(f"{len(replies)} of {len(nodes)} no-op replies came back whole")
    return time.perf_counter() - started
