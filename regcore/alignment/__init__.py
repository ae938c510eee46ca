"""Affine alignment, and bringing scans onto one grid."""
