"""Carries out the runs of a sweep on Ray."""

from importlib.util import find_spec

from cl_platform.errors import BadInput

if find_spec("ray") is None:
    raise BadInput("sweeps need Ray: install the extra `sweeps`")
