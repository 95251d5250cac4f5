"""What decides the order of learning: curricula before a run, teachers while it goes on."""
