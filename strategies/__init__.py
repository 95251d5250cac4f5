"""Strategies: one file per method or close family of methods. ``er.py`` is the one to read first."""
