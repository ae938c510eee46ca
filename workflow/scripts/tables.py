"""Write the tables and the box plots."""

from regcore.reporting.study_report import write_tables
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    write_tables(Results(plan), snakemake.params.entries, dict(snakemake.output.items()))
