"""Judge a model on data of your own, without a simulation: `python -m simulations.judge`."""
