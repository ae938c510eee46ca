"""Measure the weight volumes of a network on the test pairs."""

from regcore.scripting import job
from regcore.stages.weights import write_weights

with job(snakemake) as plan:
    write_weights(plan, snakemake.wildcards.method, snakemake.output.table, snakemake.output.volumes)
