"""Streams, the data they are made of, and curricula. Read ``images.py`` first."""
