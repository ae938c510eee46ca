"""Keep the model of a search's best trial."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.tune import collect

with job(snakemake) as plan:
    name = snakemake.wildcards.method
    collect(plan, name, Path(snakemake.output[0]))
