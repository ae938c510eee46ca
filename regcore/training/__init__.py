"""The trainer of all learned methods."""
