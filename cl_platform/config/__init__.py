"""Names and text become checked objects."""
