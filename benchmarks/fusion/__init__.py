"""Label fusion against other implementations, and its modes against each other."""
