"""Every firm's ClientApp, which answers after a while: in another order in every round."""

import os
import random
import time

from flwr.app import Context, Message

from simulations.engines import apps

_rng = random.Random(os.getpid())  # of each worker its own


def client(message: Message, context: Context) -> Message:
    time.sleep(_rng.uniform(0, 0.05))
    return apps.client(message, context)
