"""What we are measured against: loops by hand, and the strategies of Avalanche."""
