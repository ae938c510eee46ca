"""List the pairs of the study."""

from regcore.study.job import job
from regcore.study.stages.listing import write_pairs

with job(snakemake) as plan:
    write_pairs(plan, snakemake.output[0])
