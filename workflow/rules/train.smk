"""Training of learned methods."""


rule train:
    """Train a method on the training pairs; keep the weights with the best validation Dice.

    The state of the training is beside the output, in a folder that Snakemake does not know and so does not delete:
    a killed training resumes.
    """
    input:
        prepared=WORKFLOW.prepared,
        labels=WORKFLOW.label_table,
        searched=lambda wildcards: WORKFLOW.architecture(wildcards.method),
    output:
        directory("<study>/models/{method}"),
    log:
        "<study>/logs/train/{method}.log",
    benchmark:
        "<study>/benchmarks/train/{method}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.trained),
    priority: 1  # the longest job starts first
    threads: WORKFLOW.sized(1, 8)
    resources:
        mem_mb=WORKFLOW.sized(4000, 16000),
        runtime=WORKFLOW.sized(120, 2880),
        gpu=WORKFLOW.gpus("train"),
    params:
        method=lambda wildcards: WORKFLOW.entry(wildcards.method).method,
        settings=lambda wildcards: WORKFLOW.entry(wildcards.method).settings,
        seed=config["seed"],
        scored=config["labels"],
        pairs=WORKFLOW.pairs_of_training,
        training_pairs=lambda wildcards: WORKFLOW.training_pairs(wildcards.method),
        checkpoints=str(PLAN.files.checkpoints),
        stage=lambda wildcards: WORKFLOW.version("train", wildcards.method),
    message:
        "Training {wildcards.method} (a progress line every 15 s)"
    script:
        "../scripts/train.py"
