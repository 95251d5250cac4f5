"""Strategies: one file per method or close family. Read ``er.py`` first."""
