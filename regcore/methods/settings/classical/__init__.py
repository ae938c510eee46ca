"""Settings of external tools, a module each; most have the names of the tool.

The tools themselves are in :mod:`regcore.methods.classical`.
"""
