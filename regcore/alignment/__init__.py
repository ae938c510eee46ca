"""Affine alignment, and resampling scans onto one grid."""
