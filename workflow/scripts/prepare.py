"""Prepare one part of the scans."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.prepare import prepare_scans

with job(snakemake) as plan:
    prepare_scans(plan, snakemake.params.scans, Path(snakemake.output[0]))
