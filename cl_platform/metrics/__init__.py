"""Numbers: from accuracies to metrics, and from metrics to statements."""
