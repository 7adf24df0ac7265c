"""How right refined models are: synthetic hearts, real anatomies, patients."""
