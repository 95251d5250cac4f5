"""The contracts: what a stream, a strategy, a curriculum and their states are."""
