"""Hyperparameters and architectures: searches, and sweeps over trained networks."""


rule trial:
    """Train a method with hyperparameters drawn by its search. A killed trial resumes.

    The search itself, an Optuna journal shared by the trials, is beside the outputs, in a file that Snakemake does
    not know and so does not delete.
    """
    input:
        prepared=WORKFLOW.prepared,
        labels=WORKFLOW.label_table,
        before=lambda wildcards: WORKFLOW.trial_before(wildcards.method, wildcards.slot),
    output:
        "<study>/tuning/{method}/trials/{slot}.json",
    log:
        "<study>/logs/tuning/{method}_{slot}.log",
    benchmark:
        "<study>/benchmarks/tuning/{method}_{slot}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.searched),
        slot=r"\d+",
    priority: 1
    threads: WORKFLOW.sized(1, 8)
    resources:
        mem_mb=WORKFLOW.sized(4000, 16000),
        runtime=WORKFLOW.sized(120, 2880),
        gpu=WORKFLOW.gpus("trial"),
    params:
        method=lambda wildcards: WORKFLOW.entry(wildcards.method).method,
        settings=lambda wildcards: WORKFLOW.entry(wildcards.method).settings,
        search=lambda wildcards: WORKFLOW.entry(wildcards.method).search.identity,
        seed=config["seed"],
        scored=config["labels"],
        pairs=WORKFLOW.pairs_of_training,
        training_pairs=lambda wildcards: WORKFLOW.training_pairs(wildcards.method),
        checkpoints=str(PLAN.files.checkpoints),
        stage=lambda wildcards: WORKFLOW.version("trial", wildcards.method),
    message:
        "Training {wildcards.method}, trial {wildcards.slot} of its search"
    script:
        "../scripts/trial.py"


rule search:
    """Keep the best trial's model, and the table of all trials."""
    input:
        trials=lambda wildcards: WORKFLOW.trials(wildcards.method),
    output:
        directory("<study>/models/{method}"),
    log:
        "<study>/logs/tuning/{method}.log",
    benchmark:
        "<study>/benchmarks/tuning/{method}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.searched),
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage=WORKFLOW.version("search"),
    message:
        "Choosing the best trial of {wildcards.method}"
    script:
        "../scripts/search.py"


rule architecture:
    """Search for the cells and the objective of an AutoReg network, which is then trained like any network."""
    input:
        prepared=WORKFLOW.prepared,
        labels=WORKFLOW.label_table,
        before=lambda wildcards: WORKFLOW.searches_before(wildcards.method),
    output:
        found="<study>/architectures/{method}/architecture.json",
        facts="<study>/architectures/{method}/search.json",
        trace="<study>/architectures/{method}/trace.csv",
    log:
        "<study>/logs/architectures/{method}.log",
    benchmark:
        "<study>/benchmarks/architectures/{method}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.cell_searched),
    priority: 2  # a training waits for it
    threads: WORKFLOW.sized(1, 8)
    resources:
        mem_mb=WORKFLOW.sized(4000, 32000),
        runtime=WORKFLOW.sized(240, 2880),
        gpu=WORKFLOW.gpus("architecture"),
    params:
        settings=lambda wildcards: WORKFLOW.entry(wildcards.method).settings,
        search=lambda wildcards: WORKFLOW.entry(wildcards.method).cell_search.settings.as_dict(),
        seed=config["seed"],
        scored=config["labels"],
        pairs=WORKFLOW.pairs_of_training,
        training_pairs=lambda wildcards: WORKFLOW.training_pairs(wildcards.method),
        checkpoints=str(PLAN.files.checkpoints),
        stage=lambda wildcards: WORKFLOW.version("architecture", wildcards.method),
    message:
        "Searching for the architecture of {wildcards.method}"
    script:
        "../scripts/architecture.py"


rule sweep:
    """Score the networks of a landscape on the common grid, hypernetworks at many hyperparameters, and tune those."""
    input:
        models=lambda wildcards: WORKFLOW.models_of_sweep(wildcards.sweep),
        prepared=WORKFLOW.prepared_to_score,
        labels=WORKFLOW.label_table,
    output:
        table="<study>/sweeps/{sweep}.parquet",
        optima="<study>/sweeps/{sweep}.csv",
    log:
        "<study>/logs/sweep/{sweep}.log",
    benchmark:
        "<study>/benchmarks/sweep/{sweep}.tsv"
    wildcard_constraints:
        sweep=one_of(PLAN.sweeps),
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(4000, 16000),
        runtime=WORKFLOW.sized(240, 2880),
        gpu=WORKFLOW.gpus("sweep"),
    params:
        scored=config["labels"],
        pairs=PLAN.pairs["pair"].to_list(),
        stage=lambda wildcards: WORKFLOW.version("sweep", *WORKFLOW.entries_of_sweep(wildcards.sweep)),
    message:
        "Scoring the networks of {wildcards.sweep}"
    script:
        "../scripts/sweep.py"
