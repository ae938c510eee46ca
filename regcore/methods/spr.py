"""TM-SPR (Chen et al., 2024): the strength of smoothing is itself predicted at every voxel.

A head on the network's features predicts the weight volume λ(p), which a prior keeps near its largest or mean value
(Eq. 19: similarity + weighted diffusion - log prior).  The head works with TransMorph and U-Nets, and is not needed to
register.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from regcore.losses import beta_log_prior, gaussian_log_prior, weighted_diffusion
from regcore.methods.flow import unet_design
from regcore.methods.objective import ObjectiveMethod
from regcore.methods.settings.spr import TRANSMORPH, UNET, SPRSettings
from regcore.methods.transmorph import settled_attention, transmorph_design
from regcore.networks.weight_volume import WeightedDesign, beta_weights, gaussian_weights
from regcore.spatial import crop_to, resample


class SPR(ObjectiveMethod):
    """Spatially varying regularisation under a Beta or a Gaussian prior.

    TM-SPR is this with TransMorph's network [1]_.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import make_method
    >>> method = make_method("spr", {"network": "unet", "prior": "beta", "alpha": 0.1})
    >>> network = method.build(ndim=2).eval()
    >>> fixed, moving = torch.rand(2, 1, 1, 32, 32)
    >>> flow = method.predict(network, fixed, moving)
    >>> weights = method.weights(flow, fixed)  # the strength of smoothing at every voxel, relative to the largest
    >>> tuple(method.displacement(flow, fixed).shape), tuple(weights.shape), 0 < weights.mean().item() < 1
    ((1, 2, 32, 32), (1, 1, 32, 32), True)
    """

    settings_type: ClassVar = SPRSettings
    settings: SPRSettings

    @property
    def design(self) -> WeightedDesign:
        chosen = self.settings
        inner = unet_design(chosen, chosen.input) if chosen.network == UNET else transmorph_design(chosen)
        return WeightedDesign(inner, chosen.features, chosen.norm)

    def fit_to(self, shape: Sequence[int]) -> None:
        if self.settings.network == TRANSMORPH:
            self.settings.attention = settled_attention(self.settings.attention, shape)

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        return super().displacement(flow[:, : image.ndim - 2], image)

    def weights(self, flow: Tensor, image: Tensor) -> Tensor:
        """w(p), the weight volume relative to λ_max or λ_mean, (B, 1, *space) like ``image``."""
        factor = self.settings.flow_resolution
        drawn = resample(flow[:, image.ndim - 2 :], [factor * n for n in flow.shape[2:]])
        made = beta_weights if self.settings.prior == "beta" else gaussian_weights
        return made(crop_to(drawn, image.shape[2:]))

    def losses_of(self, flow: Tensor, batch: Mapping, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        deformed = {**deformed, "weights": self.weights(flow, batch["fixed"])}
        return super().losses_of(flow, batch, deformed)

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = deformed["weights"]
        return {
            "diffusion": weighted_diffusion(deformed["displacement"], weights),
            "prior": -self._log_prior(weights),
        }

    def _log_prior(self, weights: Tensor) -> Tensor:
        if self.settings.prior == "beta":
            return beta_log_prior(weights, 1 + self.settings.alpha)
        amount = self.settings.sigma
        return gaussian_log_prior(weights, (2 * amount) ** -0.5 if amount else float("inf"))

    def _weights(self, with_labels: bool) -> dict[str, float]:
        chosen = self.settings
        return {
            chosen.similarity: 1,
            "diffusion": chosen.lambda_max if chosen.prior == "beta" else chosen.lambda_mean,
            "prior": 1,
            "label_dice": chosen.overlap_weight,
        }
