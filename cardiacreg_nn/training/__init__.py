"""Training: configuration, losses, the loop, what a run leaves behind."""
