"""The cohort: the table of scans, their labels, the pairs, and the pool of pairs for training."""
