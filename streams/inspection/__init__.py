"""What a stream holds: a look at data before anything is trained on them."""
