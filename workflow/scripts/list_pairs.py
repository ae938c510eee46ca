"""List the pairs of the study."""

from regcore.scripting import job
from regcore.stages.prepare import write_pairs

with job(snakemake) as plan:
    write_pairs(plan, snakemake.output[0])
