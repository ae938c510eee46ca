"""What several tests share: paths, small studies, runs of Snakemake, and tools for kernels."""
