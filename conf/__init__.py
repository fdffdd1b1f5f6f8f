"""The configuration tree: config.yaml, then a folder a choice."""
