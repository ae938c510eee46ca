"""Train one method."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.architecture import found_values
from regcore.study.stages.train import train

with job(snakemake) as plan:
    name = snakemake.wildcards.method
    train(plan, name, Path(snakemake.output[0]), Path(snakemake.params.checkpoints, name), found_values(plan, name))
