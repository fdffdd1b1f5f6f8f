"""Joins, repeats, reports. Knows no mathematics."""
