"""Losses for training and instance optimisation: pure functions of tensors, each with its equation."""

from regcore.losses.information import nmi
from regcore.losses.mind import mind_ssc, mind_ssc_descriptor, mind_ssc_difference
from regcore.losses.overlap import soft_dice
from regcore.losses.priors import beta_log_prior, beta_weight, gaussian_log_prior
from regcore.losses.similarity import field_mse, lncc, mse
from regcore.losses.smoothness import bending_energy, diffusion, weighted_diffusion

__all__ = [
    "bending_energy",
    "beta_log_prior",
    "beta_weight",
    "diffusion",
    "field_mse",
    "gaussian_log_prior",
    "lncc",
    "mind_ssc",
    "mind_ssc_descriptor",
    "mind_ssc_difference",
    "mse",
    "nmi",
    "soft_dice",
    "weighted_diffusion",
]
