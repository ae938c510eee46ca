"""Score the fields of one method."""

from regcore.files import atomic_write
from regcore.scripting import job
from regcore.stages.score import evaluate_method

with job(snakemake) as plan, atomic_write(snakemake.output[0]) as path:
    evaluate_method(plan, snakemake.wildcards.method).to_parquet(path, index=False)
