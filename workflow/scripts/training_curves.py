"""Draw the training curves."""

from regcore.reporting.study_report import draw_training_curves
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    draw_training_curves(Results(plan), snakemake.params.methods, snakemake.output[0])
