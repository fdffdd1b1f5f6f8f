"""What Flower's run config and node config carry, by name. A firm's app reads it: no imports."""

CONFIG, DIGEST, FOLDER = "config", "config-sha256", "folder"  # of the run
PARTY, DESK = "party", "desk"  # of a node
