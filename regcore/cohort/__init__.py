"""Who was scanned: the table of scans, their labels, the pairs, and the pool that trainings draw from."""
