"""Streams whose structure is known, so that what should be found in them is known too."""
