"""Reads the files of data sets."""
