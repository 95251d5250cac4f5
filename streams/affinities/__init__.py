"""Affinities: how much one experience helps to learn another. Read ``leep.py`` first."""
