"""Baselines without training: affine alignment only, and external tools."""
