"""The plan of the study, and the object that gives rules their inputs, parameters and resources."""

import sys
from pathlib import Path

from regcore.errors import explained
from regcore.study.decision import decided_plan
from regcore.study.workflow import Workflow, limit_gpus, one_of


def answered(question, *arguments):
    """Call a function; end the run with only the message unless the program is at fault."""
    try:
        return question(*arguments)
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        sys.exit(f"The study cannot start:\n{message}")


PLAN = answered(decided_plan, config, workflow.is_main_process)
WORKFLOW = Workflow(PLAN, Path(workflow.basedir, "scripts"))
config.clear()
config.update(PLAN.config)
limit_gpus(workflow)

if workflow.is_main_process:
    for name, reason in PLAN.unavailable.items():
        print(f"Not run: {name}: {reason}", file=sys.stderr)
