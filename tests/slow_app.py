"""A ClientApp whose second firm answers too late (for tests of bounded waits)."""

import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

client = ClientApp()


@client.query()
def query(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    if context.node_config["party"] == "lender_b":
        time.sleep(5)
    return Message(message.content, reply_to=message)
