"""Write the true fields of one part of the test pairs."""

from regcore.study.job import job
from regcore.study.stages.register import write_true_fields

with job(snakemake) as plan:
    write_true_fields(plan, snakemake.params.pairs)
