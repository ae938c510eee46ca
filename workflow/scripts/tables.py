"""Write the tables and the box plots."""

from regcore.reporting.study_report import write_tables
from regcore.study.job import job

with job(snakemake) as plan:
    write_tables(plan, snakemake.params.entries, snakemake.input.metrics, dict(snakemake.output.items()))
