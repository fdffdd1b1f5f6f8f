"""What others would do with the same firms or images: scripts for interpreters of their own.

`PYTHON -m simulations.bench.peers.NAME WORKLOAD.npz` holds the workload (`workload.py`) and ends
with a line of JSON: {"cpu_s", "wall_s": seconds of every round but the first, "loss": of the final
model, "trainings": firms a round, "versions"}. (`equiadapt.py` holds no workload: it answers
`simulations.bench.canonicalize`.) They import little of ours; torch has one thread.
"""
