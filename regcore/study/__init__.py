"""A study: its plan, the checks before it, and its stages."""
