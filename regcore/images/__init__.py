"""Volumes and fields with their geometry, and the files that they are read from and written to."""
