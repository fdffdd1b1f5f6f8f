"""The exact game on a joint table P(t, s1, s2). Definitions: arXiv 2403.17515, Section 2."""
