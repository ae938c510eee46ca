"""Score the fields of one method."""

from regcore.process.files import atomic_write
from regcore.study.job import job
from regcore.study.stages.score import evaluate_method

with job(snakemake) as plan, atomic_write(snakemake.output[0]) as path:
    evaluate_method(plan, snakemake.wildcards.method).to_parquet(path, index=False)
