"""Scoring: one evaluator for every method."""


rule evaluate:
    """Score all fields of one method and write tidy rows."""
    input:
        fields=lambda wildcards: WORKFLOW.fields(wildcards.method),
        truth=WORKFLOW.true_fields,
        scans=WORKFLOW.test_scans,
        labels=WORKFLOW.label_table,
    output:
        "<study>/metrics/{method}.parquet",
    log:
        "<study>/logs/evaluate/{method}.log",
    benchmark:
        "<study>/benchmarks/evaluate/{method}.tsv"
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 240),
    params:
        points=config["evaluation"]["points"],
        seed=config["seed"],
        scored=config["labels"],
        pairs=PLAN.pairs_of("test")["pair"].to_list(),
        stage=WORKFLOW.version("evaluate"),
    message:
        "Scoring {wildcards.method}"
    script:
        "../scripts/evaluate.py"
