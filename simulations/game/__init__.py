"""`python -m simulations.game`: the exact contract engine on the command line."""
