"""Runs, sweeps and dashboards on Weights & Biases."""
