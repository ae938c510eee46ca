"""The command line: :mod:`regcore.commands.cli` declares the commands; each has a module that does the work."""
