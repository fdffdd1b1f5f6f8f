"""`python -m simulations.deploy`: a study on machines of its own.

experiment=NAME out=FOLDER [host=NAME] [port=NUMBER] [days=NUMBER] [any override of fedpact]
                  write all that the operator and the firms need
check --firm NAME report on a firm's data and settings, before it joins
check --example [csv|parquet|images]
                  print a description of own data (data.yaml) to begin with
desk --firm NAME  a firm's desk: holds its data and models, answers what its node hands it
key --firm NAME   make a firm's own keys
superlink         the operator's side of the network (superlink.sh calls it)
operate           hold the study, as the operator
trial out=FOLDER ...
                  all of it on this machine: write, start, hold the study, stop

host and port are where firms reach the operator (localhost, 9092), days how long the certificates
are good (365). Every command has --help.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from parties.exchange import FedpactError

# Imported late: a node's command needs no Hydra, a key no torch. Each has main(arguments) -> int.
COMMANDS = {
    name: f"simulations.deploy.{name}"
    for name in ("check", "desk", "key", "superlink", "operate", "trial")
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 for a mistake that a person can mend."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    asks = not words or (words[0] not in COMMANDS and {"-h", "--help"} & {*words})
    if asks:
        sys.stdout.write(f"{__doc__}")
        return 0
    try:
        if words[0] in COMMANDS:
            return int(importlib.import_module(COMMANDS[words[0]]).main(words[1:]))
        from simulations.deploy.writing import write

        return write(words)
    except FedpactError as fault:
        text = str(fault)
    except (HydraException, OmegaConfBaseException) as fault:
        from simulations.mistakes import explain

        text = explain(fault)
    except OSError as fault:
        text = f"{fault.strerror}: {fault.filename}. Choose another folder."
    sys.stderr.write(f"fedpact: {text}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
