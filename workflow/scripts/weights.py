"""Measure the weight volumes of a network on the test pairs."""

from regcore.study.job import job
from regcore.study.stages.weights import write_weights

with job(snakemake) as plan:
    write_weights(plan, snakemake.wildcards.method, snakemake.output.table, snakemake.output.volumes)
