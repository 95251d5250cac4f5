"""Folders of data sets, pretrained weights and caches."""

from __future__ import annotations

import os
from pathlib import Path


def data_home() -> Path:
    """Return the data folder: ``$CLP_DATA``, else the user's cache."""
    return Path(os.environ.get("CLP_DATA") or user_cache()).expanduser()


def user_cache() -> Path:
    """Return the platform's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clp"
