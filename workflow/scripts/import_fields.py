"""Import some test pairs' fields that were made elsewhere."""

from regcore.study.job import job
from regcore.study.stages.register import import_pairs

with job(snakemake) as plan:
    import_pairs(plan, snakemake.wildcards.method, snakemake.params.pairs)
