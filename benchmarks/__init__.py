"""What the platform costs beside what one writes by hand: ``python -m benchmarks``."""
