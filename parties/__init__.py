"""One firm, and only what it would own alone: data, backbone, training, its answers."""
