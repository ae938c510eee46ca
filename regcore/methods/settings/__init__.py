"""What each method can be told: one class of settings for each, which needs no torch.

A plan checks a study with these alone.  The methods themselves are in :mod:`regcore.methods`.
"""
