"""Checkpoints as they lie on disk, written without the code that is tested."""

import json

import torch
from safetensors.torch import save_file


def save_by_hand(path, tensors, facts):
    """Tensors by name, and facts as JSON in the header."""
    plain = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    save_file(plain, path, metadata={"facts": json.dumps(facts)})
