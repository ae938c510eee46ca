"""Make one table or figure of a paper."""

from regcore.papers.write import write_experiment
from regcore.study.job import job

with job(snakemake) as plan:
    write_experiment(plan, snakemake.wildcards.paper, snakemake.wildcards.experiment, dict(snakemake.output.items()))
