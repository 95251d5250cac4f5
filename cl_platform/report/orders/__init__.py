"""What the order of learning changed."""
