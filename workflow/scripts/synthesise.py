"""Make one part of the embedded cohort's subjects."""

from regcore.study.job import job
from regcore.synthesis.icbm152 import synthesise

with job(snakemake) as plan:
    synthesise(plan.embedded, snakemake.params.subjects, snakemake.params.seed, snakemake.output[0])
