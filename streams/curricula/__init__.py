"""Curricula: orders in which a stream is learned. Read ``basic.py`` first."""
