"""Import fields of one part of the test pairs."""

from regcore.study.job import job
from regcore.study.stages.register import import_pairs

with job(snakemake) as plan:
    import_pairs(plan, snakemake.wildcards.method, snakemake.params.pairs)
