"""Banks and the choice of atlases."""
