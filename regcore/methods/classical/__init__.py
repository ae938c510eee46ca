"""Baselines that need no training: alignment alone, and the tools that others have made."""
