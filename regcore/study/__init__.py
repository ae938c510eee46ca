"""A study: checks, plan and stages."""
