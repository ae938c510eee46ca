"""TM-SPR (Chen et al., 2024)."""
