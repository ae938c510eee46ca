"""VoxelMorph (Balakrishnan et al., 2019)."""
