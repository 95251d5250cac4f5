"""The samples of each epoch: what a pacing makes of the scores of a reference model."""
