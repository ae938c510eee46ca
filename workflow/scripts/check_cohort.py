"""Check a user's cohort by reading every voxel."""

from regcore.process.files import atomic_write
from regcore.study.job import job
from regcore.study.stages.listing import check_cohort

with job(snakemake) as plan, atomic_write(snakemake.output[0]) as path:
    path.write_text(check_cohort(plan) + "\n")
