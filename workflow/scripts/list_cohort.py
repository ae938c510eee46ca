"""Write the tables of the embedded cohort and of its labels."""

from regcore.scripting import job
from regcore.stages.prepare import write_cohort_tables

with job(snakemake) as plan:
    write_cohort_tables(plan, snakemake.output.cohort, snakemake.output.labels)
