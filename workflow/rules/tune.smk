"""Hyperparameters: scoring networks that differ in them, and hypernetworks that have them all."""


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
        stage=STAGE_VERSIONS["sweep"],
    message:
        "Scoring the networks of {wildcards.sweep}"
    script:
        "../scripts/sweep.py"
