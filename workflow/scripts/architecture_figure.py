"""Draw what a search for an architecture did."""

from pathlib import Path

from regcore.reporting.architectures import search_figure
from regcore.reporting.figures import save_figure
from regcore.study.job import job

with job(snakemake):
    save_figure(search_figure(Path(snakemake.input[0]).parent), snakemake.output[0])
