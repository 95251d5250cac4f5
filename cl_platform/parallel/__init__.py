"""One run on several processes, which share the rows of each batch."""
