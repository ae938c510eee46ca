"""The search for AutoReg's cells and objective."""
