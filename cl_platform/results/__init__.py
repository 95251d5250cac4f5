"""What one run left."""
