"""What others would do with the same firms: scripts, each for an interpreter of its own.

`PYTHON -m simulations.bench.peers.NAME WORKLOAD.npz` holds the workload (`workload.py`) and ends
with a line of JSON: {"cpu_s", "wall_s": seconds of every round but the first, "loss": of the final
model, "trainings": firms a round, "versions"}. They import little of ours; torch has one thread.
"""
