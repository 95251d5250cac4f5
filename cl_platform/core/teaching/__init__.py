"""The contracts of what decides which data are learned when, within an experience."""
