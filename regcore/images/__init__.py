"""Volumes and fields with their geometry, and reading and writing their files."""
