"""Score the networks of a landscape."""

from regcore.scripting import job
from regcore.stages.sweep import write_sweep

with job(snakemake) as plan:
    write_sweep(plan, snakemake.wildcards.sweep, snakemake.output.table, snakemake.output.optima)
