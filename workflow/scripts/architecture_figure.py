"""Draw the course of a search for an architecture."""

from regcore.reporting.architectures import search_figure
from regcore.reporting.figures import save_figure
from regcore.study.job import job
from regcore.study.results import Results

with job(snakemake) as plan:
    save_figure(search_figure(Results(plan).trace(snakemake.wildcards.method)), snakemake.output[0])
