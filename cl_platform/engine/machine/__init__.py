"""How a run uses its machine: threads, and torch's compiler or none."""
