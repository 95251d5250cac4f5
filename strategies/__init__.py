"""Strategies: one file per method or close family. ``er.py`` is the one to read first."""
