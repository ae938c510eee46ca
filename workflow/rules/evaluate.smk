"""Scoring: one evaluator for every method."""


rule evaluate:
    """Score all fields of one method and write tidy rows."""
    input:
        fields=fields_of,
        truth=true_fields_of,
        scans=files_of(test_scans()),
        labels=label_table(),
    output:
        "<study>/metrics/{method}.parquet",
    log:
        "<study>/logs/evaluate/{method}.log",
    benchmark:
        "<study>/benchmarks/evaluate/{method}.tsv"
    threads: 1
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=240 if LARGE else 30,
    params:
        points=config["evaluation"]["points"],
        seed=config["seed"],
        scored=config["labels"],
        pairs=PLAN.pairs_of("test")["pair"].to_list(),
        stage=version_of("evaluate"),
    message:
        "Scoring {wildcards.method}"
    script:
        "../scripts/evaluate.py"
