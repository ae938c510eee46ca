"""Draw the best, median and worst pair of a method."""

from regcore.reporting.study_report import draw_pairs
from regcore.study.job import job

with job(snakemake) as plan:
    draw_pairs(plan, snakemake.wildcards.method, snakemake.input.metrics, snakemake.output[0])
