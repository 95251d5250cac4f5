"""The platform's version, where the build and everything else reads it."""

__version__ = "0.2.0"
