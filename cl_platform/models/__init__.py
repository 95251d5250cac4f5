"""Networks, their weights, and the features of those that stay frozen."""
