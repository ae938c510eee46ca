"""Score the networks of a landscape."""

from regcore.study.job import job
from regcore.study.stages.sweep import write_sweep

with job(snakemake) as plan:
    write_sweep(plan, snakemake.wildcards.sweep, snakemake.output.table, snakemake.output.optima)
