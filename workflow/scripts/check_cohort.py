"""Read through a user's cohort."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.prepare import check_scans

with job(snakemake) as plan:
    Path(snakemake.output[0]).write_text(check_scans(plan.cohort) + "\n")
