"""What tuning tried, and what it chose."""
