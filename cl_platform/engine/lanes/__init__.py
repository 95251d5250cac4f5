"""Runs that differ in numbers only, trained side by side on stacked weights."""
