"""Write the report."""

from regcore.reporting.study_report import write_page
from regcore.study.job import job

with job(snakemake) as plan:
    write_page(plan, snakemake.output[0])
