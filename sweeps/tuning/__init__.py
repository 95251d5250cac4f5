"""Chooses settings, orders and schedules by validation data."""
