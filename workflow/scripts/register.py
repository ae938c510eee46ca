"""Register one part of the test pairs with one method."""

from pathlib import Path

from regcore.study.job import job
from regcore.study.stages.register import register_pairs

with job(snakemake) as plan:
    model = Path(str(snakemake.input.model)) if snakemake.input.get("model") else None
    register_pairs(plan, snakemake.wildcards.method, snakemake.params.pairs, model)
