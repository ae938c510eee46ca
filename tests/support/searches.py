"""A worker of a search for hyperparameters, as the workflow's jobs are."""

import json

import torch

from regcore.study.plan import plan_study
from regcore.study.stages.tune import run_trial


def run_every_fourth_slot(folder, number):
    """Run the trials ``number``, ``number + 4``, … of the entry ``vm`` of the study whose plan is in ``folder``."""
    torch.set_num_threads(1)
    plan = plan_study(json.loads((folder / "plan").read_text()), results=str(folder / "results"))
    for slot in range(number, plan.entries["vm"].search.trials, 4):
        output = plan.files.search("vm") / "trials" / f"{slot:03d}.json"
        run_trial(plan, "vm", slot, output, plan.folder / "checkpoints" / "vm" / f"{slot:03d}")
