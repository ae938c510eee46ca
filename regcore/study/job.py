"""Set-up of a job: what every script of the workflow does around its one call into regcore."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from regcore.errors import explained
from regcore.images.ants import THREADS_VARIABLE
from regcore.process.logs import log_to
from regcore.process.threads import tune_process
from regcore.study.plan import Plan, plan_study

log = logging.getLogger(__name__)


@contextmanager
def job(snakemake) -> Iterator[Plan]:
    """Set up logging and threads for a job, yield the study's plan, and report mistakes without a traceback.

    Nor has what the system refuses a traceback: a file, room on a disk, or memory.

    Parameters
    ----------
    snakemake
        The object that Snakemake provides to scripts.

    Yields
    ------
    Plan
        The study's plan, not checked again.

    Raises
    ------
    SystemExit
        The block raised :class:`regcore.errors.InputError`: its message is logged, and the exit status is 2.
    """
    os.environ[THREADS_VARIABLE] = str(snakemake.threads)
    log_to(*snakemake.log, prefix=" ".join([snakemake.rule, *snakemake.wildcards]))
    # A job that loads torch later, if at all, has its threads from OMP_NUM_THREADS, which Snakemake sets.
    tune_process(snakemake.threads if "torch" in sys.modules else None)
    try:
        yield plan_study(snakemake.config, check=False)
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        log.error("%s", message)
        sys.exit(2)
