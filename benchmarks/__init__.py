"""Measured accuracy and speed; every number in the documentation comes from here."""
