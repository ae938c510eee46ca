"""Synthetic images and label maps, with known true correspondence."""
