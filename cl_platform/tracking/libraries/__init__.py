"""Sinks of libraries, one short file each; all receive the names of the schema."""
