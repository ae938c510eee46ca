"""Measure how much the features of a network vary over a series of contrasts."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.features import write_features

with job(snakemake) as plan:
    write_features(plan, snakemake.wildcards.method, Path(str(snakemake.input.model)), snakemake.output[0])
