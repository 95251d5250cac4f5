"""What is made of a trained run: a network that stands by itself, files, and updates."""
