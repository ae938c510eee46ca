"""Make one table or figure of a paper."""

from regcore.papers.write import write_experiment
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    paper, experiment = snakemake.wildcards.paper, snakemake.wildcards.experiment
    write_experiment(Results(plan), paper, experiment, dict(snakemake.output.items()))
