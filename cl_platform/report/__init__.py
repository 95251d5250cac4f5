"""Pages and tables about the runs of a folder."""
