"""Pacings: which samples of an experience each epoch consists of. Read ``cyclical.py`` first."""
