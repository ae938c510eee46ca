"""Hyperparameters and architectures: searching for them, and scoring networks that differ in them or have them all."""


rule trial:
    """Train a method with hyperparameters that its search draws; a killed trial goes on where it was.

    The search itself, an Optuna journal that trials share, lies beside the outputs, in a file that Snakemake does
    not know and so does not delete.
    """
    input:
        prepared=prepared_parts(PLAN.scans),
        labels=label_table(),
        before=trial_before,
    output:
        "<study>/tuning/{method}/trials/{slot}.json",
    log:
        "<study>/logs/tuning/{method}_{slot}.log",
    benchmark:
        "<study>/benchmarks/tuning/{method}_{slot}.tsv"
    wildcard_constraints:
        method=SEARCHED_NAMES,
        slot=r"\d+",
    priority: 1
    threads: 8 if LARGE else 1
    resources:
        mem_mb=16000 if LARGE else 4000,
        runtime=2880 if LARGE else 120,
        gpu=GPUS_PER_TRAINING,
    params:
        method=lambda wildcards: PLAN.method_of(wildcards.method),
        settings=settings_of,
        search=search_settings,
        seed=config["seed"],
        scored=config["labels"],
        pairs={key: config["pairs"][key] for key in ("kind", "atlas", "contrasts", "validation")},
        training_pairs=training_pairs_of,
        checkpoints=f"{PLAN.folder}/checkpoints",
        stage=lambda wildcards: version_of("trial", wildcards.method),
    message:
        "Training {wildcards.method}, trial {wildcards.slot} of its search"
    script:
        "../scripts/trial.py"


rule search:
    """Take over the best trial's model, and the table of all trials."""
    input:
        trials=trials_of,
    output:
        directory("<study>/models/{method}"),
    log:
        "<study>/logs/tuning/{method}.log",
    benchmark:
        "<study>/benchmarks/tuning/{method}.tsv"
    wildcard_constraints:
        method=SEARCHED_NAMES,
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage=version_of("search"),
    message:
        "Choosing the best trial of {wildcards.method}"
    script:
        "../scripts/search.py"


rule architecture:
    """Search for the cells and the objective of an AutoReg network, which is then trained like any other."""
    input:
        prepared=prepared_parts(PLAN.scans),
        labels=label_table(),
        before=searches_before,
    output:
        found="<study>/architectures/{method}/architecture.json",
        facts="<study>/architectures/{method}/search.json",
        trace="<study>/architectures/{method}/trace.csv",
    log:
        "<study>/logs/architectures/{method}.log",
    benchmark:
        "<study>/benchmarks/architectures/{method}.tsv"
    wildcard_constraints:
        method=CELL_SEARCHED_NAMES,
    priority: 2  # a training waits for it
    threads: 8 if LARGE else 1
    resources:
        mem_mb=32000 if LARGE else 4000,
        runtime=2880 if LARGE else 240,
        gpu=GPUS_PER_TRAINING,
    params:
        settings=settings_of,
        search=cell_search_settings,
        seed=config["seed"],
        scored=config["labels"],
        pairs={key: config["pairs"][key] for key in ("kind", "atlas", "contrasts", "validation")},
        training_pairs=training_pairs_of,
        checkpoints=f"{PLAN.folder}/checkpoints",
        stage=lambda wildcards: version_of("architecture", wildcards.method),
    message:
        "Searching for the architecture of {wildcards.method}"
    script:
        "../scripts/architecture.py"


rule sweep:
    """Score the networks of a landscape on the common grid, hypernetworks at many hyperparameters, and tune these."""
    input:
        models=models_of_sweep,
        prepared=prepared_parts(scans_of_sweeps()),
        labels=label_table(),
    output:
        table="<study>/sweeps/{sweep}.parquet",
        optima="<study>/sweeps/{sweep}.csv",
    log:
        "<study>/logs/sweep/{sweep}.log",
    benchmark:
        "<study>/benchmarks/sweep/{sweep}.tsv"
    wildcard_constraints:
        sweep="|".join(PLAN.sweeps) or "none",
    threads: 1
    resources:
        mem_mb=16000 if LARGE else 4000,
        runtime=2880 if LARGE else 240,
        gpu=GPUS_PER_TRAINING,
    params:
        scored=config["labels"],
        pairs=PLAN.pairs["pair"].to_list(),
        stage=lambda wildcards: version_of("sweep", *PLAN.sweeps[wildcards.sweep]),
    message:
        "Scoring the networks of {wildcards.sweep}"
    script:
        "../scripts/sweep.py"
