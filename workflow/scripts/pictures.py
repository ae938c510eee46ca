"""Draw the best, median and worst pair of a method."""

from regcore.reporting.study_report import draw_pairs
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    draw_pairs(Results(plan), snakemake.wildcards.method, snakemake.output[0])
