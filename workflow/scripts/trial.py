"""Train a method with hyperparameters drawn by its search."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.tune import run_trial

with job(snakemake) as plan:
    name, slot = snakemake.wildcards.method, snakemake.wildcards.slot
    run_trial(plan, name, int(slot), Path(snakemake.output[0]), Path(snakemake.params.checkpoints, name, slot))
