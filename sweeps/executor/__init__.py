"""Carries out the runs of a sweep on Ray."""
