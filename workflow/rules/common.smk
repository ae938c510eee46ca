"""The plan of the study, and the object that the rules ask for their inputs, parameters and resources."""

import sys
from pathlib import Path

from regcore import STAGE_VERSIONS
from regcore.errors import InputError
from regcore.study.workflow import Workflow, decided_plan, limit_gpus, one_of

try:
    PLAN = decided_plan(config, Path(workflow.basedir, "schemas"), first=workflow.is_main_process)
except InputError as error:
    sys.exit(f"The study cannot start:\n{error}")
config.clear()
config.update(PLAN.config)
WORKFLOW = Workflow(PLAN)
limit_gpus(workflow)

if workflow.is_main_process:
    for name, reason in PLAN.unavailable.items():
        print(f"Not run: {name}: {reason}", file=sys.stderr)
