"""Settings of methods, studies and searches: checked, filled with defaults, fingerprinted."""
