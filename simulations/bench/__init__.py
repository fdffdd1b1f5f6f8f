"""Measurements: `python -m simulations.bench`. Ratios of alternated runs, never one time alone."""
