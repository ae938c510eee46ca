"""Train one method."""

from pathlib import Path

from regcore.scripting import job
from regcore.stages.architecture import found_values
from regcore.stages.train import train

with job(snakemake) as plan:
    name = snakemake.wildcards.method
    train(plan, name, Path(snakemake.output[0]), Path(snakemake.params.checkpoints, name), found_values(plan, name))
