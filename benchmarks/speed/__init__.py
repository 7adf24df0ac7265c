"""Seconds, memory and how they scale."""
