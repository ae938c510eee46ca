"""Training of learned methods."""


rule train:
    """Train a method on the training pairs; the weights with the best validation Dice are kept.

    The state of the training lives beside the output, in a folder that Snakemake does not know and so
    does not wipe: a killed training resumes.
    """
    input:
        prepared=prepared_parts(PLAN.scans),
        labels=label_table(),
        searched=architecture_of,
    output:
        directory("<study>/models/{method}"),
    log:
        "<study>/logs/train/{method}.log",
    benchmark:
        "<study>/benchmarks/train/{method}.tsv"
    wildcard_constraints:
        method=TRAINED_NAMES,
    priority: 1  # the longest job starts first
    threads: 8 if LARGE else 1
    resources:
        mem_mb=16000 if LARGE else 4000,
        runtime=2880 if LARGE else 120,
        gpu=GPUS_PER_TRAINING,
    params:
        method=lambda wildcards: PLAN.method_of(wildcards.method),
        settings=settings_of,
        seed=config["seed"],
        scored=config["labels"],
        pairs={key: config["pairs"][key] for key in ("kind", "atlas", "contrasts", "validation")},
        training_pairs=training_pairs_of,
        checkpoints=f"{PLAN.folder}/checkpoints",
        stage=lambda wildcards: version_of("train", wildcards.method),
    message:
        "Training {wildcards.method} (a progress line every 15 s)"
    script:
        "../scripts/train.py"
