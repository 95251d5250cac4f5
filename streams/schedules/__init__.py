"""Streams made of another one: what is trained when, apart from what is scored."""
