"""The smallest Flower app: the operator asks each node once, each node says whose it is."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()
broken = ServerApp()


@client.query()
def echo(message: Message, context: Context) -> Message:
    """Whose node, and what it was asked."""
    told = {"party": str(context.node_config["party"]), "asked": message.content["asked"]["what"]}
    return Message(RecordDict({"told": ConfigRecord(told)}), reply_to=message)


@server.main()
def ask(grid: Grid, context: Context) -> None:
    """Waits for as many nodes as the study has firms, and writes down what each says."""
    firms = json.loads(str(context.run_config["config"]))["parties"]
    until = time.monotonic() + 60
    while len(nodes := sorted(grid.get_node_ids())) < len(firms):
        if time.monotonic() > until:
            raise TimeoutError(f"{len(nodes)} of {len(firms)} nodes came")
        time.sleep(0.2)
    asked = RecordDict({"asked": ConfigRecord({"what": "who are you?"})})
    messages = [Message(asked, dst_node_id=node, message_type="query") for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=60))
    told = sorted(str(dict(reply.content["told"])["party"]) for reply in replies)
    folder = Path(str(context.run_config["folder"]))
    folder.mkdir(exist_ok=True)
    (folder / "told.json").write_text(json.dumps(told))


@broken.main()
def fail(grid: Grid, context: Context) -> None:
    """A run that cannot be completed."""
    raise RuntimeError("the operator's app is broken")
