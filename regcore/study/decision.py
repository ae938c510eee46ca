"""What can run here, decided once for all jobs of a study."""

import json
from collections.abc import Mapping
from pathlib import Path

from regcore.process.files import atomic_write
from regcore.study.plan import UNAVAILABLE, Plan, plan_study, read_study

#: Folder of the file through which the first process tells the others what can run here.
DECISIONS = Path(".snakemake")


def decided_plan(config: Mapping, first: bool) -> Plan:
    """The plan of the study, checked by the process that the user started.

    That process looks up once what is installed.  Its jobs, perhaps on other machines and an hour later, read the
    decision from ``.snakemake`` and so plan the same study.

    Parameters
    ----------
    config : mapping
        The study, as read from YAML.
    first : bool
        Whether this is the process that the user started.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        As for :func:`regcore.study.plan.plan_study`.

    Examples
    --------
    >>> import contextlib
    >>> import tempfile
    >>> from regcore.study.decision import decided_plan
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> config = {"study": "small", "cohort": cohort, "methods": {"affine": {}, "deeds": {}}}  # deeds is not set up
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    ...     list(decided_plan(config, first=True).entries), list(decided_plan(config, first=False).unavailable)
    (['affine'], ['deeds'])
    """
    decision = DECISIONS / f"regcore-{read_study(config).study}.json"
    if not first and decision.is_file():
        config = {**config, UNAVAILABLE: json.loads(decision.read_text())}
    plan = plan_study(config, check=first)
    if first:
        with atomic_write(decision) as path:
            path.write_text(json.dumps(plan.unavailable))
    return plan
