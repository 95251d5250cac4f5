"""What decides what is learned when: curricula and teachers the order, pacings the epochs."""
