"""A study on machines of its own: what the operator and each firm need, and their commands."""
