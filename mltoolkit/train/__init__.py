"""Training: configurations, checkpoints, results."""
