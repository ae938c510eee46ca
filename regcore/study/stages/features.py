"""Stage: how much the features of a network vary over a study's series of contrasts."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from torch import Tensor

from regcore.evaluation.variability import feature_variability
from regcore.experiments.synthmorph import series_of_pairs
from regcore.methods.flow import FlowMethod
from regcore.models.pretrained import Pretrained
from regcore.networks.unet import FlowNetwork
from regcore.process.files import atomic_write
from regcore.study.plan import Plan
from regcore.study.stages.register import method_to_register, prepared_image

log = logging.getLogger(__name__)


def write_features(plan: Plan, name: str, model: Path, output: str | Path) -> None:
    """Measure the features of an entry's network on the test pairs.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        An entry whose network is a U-Net.
    model : Path
        Folder of its model.
    output : path
        CSV: ``method series layer features rmsd relative pairs contrasts``; layers count from 1.
    """
    method = method_to_register(plan, name, model)
    method = method.method if isinstance(method, Pretrained) else method
    assert isinstance(method, FlowMethod)  # as every entry whose network is a U-Net
    network = method.network
    assert isinstance(network, FlowNetwork)
    rules = network.unet.architecture
    features = [*rules.encoder, *rules.decoder, *rules.at_half, *rules.at_full]
    rows = []
    for series, groups in series_of_pairs(plan.pairs_of("test"), plan.cohort.table).items():
        found = feature_variability(network.unet, _inputs(plan, groups, method))
        contrasts = max(len(moving) for _, moving in groups)
        for layer, (width, (rmsd, relative)) in enumerate(zip(features, found, strict=True), start=1):
            rows.append((name, series, layer, width, rmsd, relative, len(groups), contrasts))
        log.info("%s: %d layers over %d contrasts of %s, %d pairs", name, len(features), contrasts, series, len(groups))
    columns = ["method", "series", "layer", "features", "rmsd", "relative", "pairs", "contrasts"]
    with atomic_write(Path(output)) as path:
        pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def _inputs(plan: Plan, groups: list[tuple[str, list[str]]], method: FlowMethod) -> Iterator[list[Tensor]]:
    """The network's inputs for a pair, with the moving image in every contrast of its subject."""
    for fixed, moving in groups:
        target = prepared_image(plan, fixed).to(method.device)
        yield [method.network_input(target, prepared_image(plan, scan).to(method.device)) for scan in moving]
