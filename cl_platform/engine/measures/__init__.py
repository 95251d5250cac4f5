"""What can be measured of a state besides its scores; off unless a run asks for it."""
