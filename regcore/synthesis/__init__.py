"""Images and label maps that nobody had to scan, with the true correspondence known."""
