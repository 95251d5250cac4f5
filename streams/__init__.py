"""Data sets, scenarios and curricula. ``benchmarks.py`` is the table of all streams."""
