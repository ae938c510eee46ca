"""The command line: :mod:`regcore.commands.cli` declares the verbs, and a module each does the work."""
