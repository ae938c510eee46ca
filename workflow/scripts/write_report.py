"""Write the report."""

from regcore.reporting.study_report import write_page
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    write_page(Results(plan), snakemake.output[0])
