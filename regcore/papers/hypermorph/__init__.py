"""HyperMorph (Hoopes et al., 2021)."""
