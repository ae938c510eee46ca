"""Draw the trials of a search for hyperparameters."""

from regcore.reporting.study_report import draw_search
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    draw_search(Results(plan), snakemake.wildcards.method, snakemake.output[0])
