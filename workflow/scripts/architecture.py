"""Search for the cells and the objective of one AutoReg network."""

from pathlib import Path

from regcore.scripting import job
from regcore.stages.architecture import search_architecture

with job(snakemake) as plan:
    name = snakemake.wildcards.method
    search_architecture(
        plan, name, Path(snakemake.output.found).parent, Path(snakemake.params.checkpoints, "architectures", name)
    )
