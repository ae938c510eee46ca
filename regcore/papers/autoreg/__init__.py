"""AutoReg (Fan et al., 2023)."""
