"""A trained model's ``model.json`` without the model, for tests of what reads it."""

import json


def write_model_json(folder, **content):
    """With the keys that every model has, of which a test gives those that it is about."""
    every = {"method": "voxelmorph", "settings": {}, "preprocess": {}, "grid": None, "training": {}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(every | content))
