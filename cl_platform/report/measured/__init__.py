"""Sections about what was measured besides the matrix."""
