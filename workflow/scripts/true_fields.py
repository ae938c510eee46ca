"""Write the true fields of some test pairs."""

from regcore.scripting import job
from regcore.stages.register import write_true_fields

with job(snakemake) as plan:
    write_true_fields(plan, snakemake.params.pairs)
