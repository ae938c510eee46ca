"""The settings of all methods: one class per method, without torch.

A plan needs only these to check a study.  The methods themselves are in :mod:`regcore.methods`.
"""
