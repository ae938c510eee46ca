"""Write the tables of the embedded cohort and of its labels."""

from regcore.study.job import job
from regcore.study.stages.listing import write_cohort_tables

with job(snakemake) as plan:
    write_cohort_tables(plan, snakemake.output.cohort, snakemake.output.labels)
