"""Where data lie that are read and not made: data sets and pretrained weights."""

from __future__ import annotations

import os
from pathlib import Path


def data_home() -> Path:
    """The data folder: ``$CLP_DATA``, else the user's cache."""
    return Path(os.environ.get("CLP_DATA") or user_cache()).expanduser()


def user_cache() -> Path:
    """The platform's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clp"
