"""Search for the cells and the objective of one AutoReg network."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.architecture import search_architecture

with job(snakemake) as plan:
    name = snakemake.wildcards.method
    search_architecture(
        plan, name, Path(snakemake.output.found).parent, Path(snakemake.params.checkpoints, "architectures", name)
    )
