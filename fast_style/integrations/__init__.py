"""Doors into engines of other projects."""
