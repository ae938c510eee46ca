"""Fields of the test pairs: classical methods, learned methods, and imported fields."""


rule register:
    """Register one part of the test pairs with one method."""
    input:
        prepared=lambda wildcards: WORKFLOW.prepared_of_pairs(wildcards.part),
        model=lambda wildcards: WORKFLOW.model(wildcards.method),
    output:
        directory("<study>/fields/{method}/{part}"),
    log:
        "<study>/logs/register/{method}/{part}.log",
    benchmark:
        "<study>/benchmarks/register/{method}/{part}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.registered),
    threads: config["registration"]["threads"]
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=lambda wildcards: WORKFLOW.registration_minutes(wildcards.method, wildcards.part),
        gpu=lambda wildcards: WORKFLOW.gpus("register", wildcards.method),
    params:
        method=lambda wildcards: WORKFLOW.entry(wildcards.method).method,
        settings=lambda wildcards: WORKFLOW.entry(wildcards.method).settings,
        pairs=lambda wildcards: WORKFLOW.pairs_in(wildcards.part),
        threads_per_pair=config["registration"]["threads"],  # some tools' results depend on it
        stage=lambda wildcards: WORKFLOW.version("register", wildcards.method),
    message:
        "Registering with {wildcards.method} ({wildcards.part})"
    script:
        "../scripts/register.py"


rule import_fields:
    """Copy imported fields into the layout of a method's fields."""
    input:
        fields=lambda wildcards: WORKFLOW.imported_files(wildcards.method, wildcards.part),
        scans=lambda wildcards: WORKFLOW.scans_of_pairs(wildcards.part),
    output:
        directory("<study>/fields/{method}/{part}"),
    log:
        "<study>/logs/import_fields/{method}/{part}.log",
    benchmark:
        "<study>/benchmarks/import_fields/{method}/{part}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.imported),
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 120),
    params:
        settings=lambda wildcards: WORKFLOW.entry(wildcards.method).settings,
        files=lambda wildcards: WORKFLOW.imported_fields(wildcards.method, wildcards.part),
        pairs=lambda wildcards: WORKFLOW.pairs_in(wildcards.part),
        stage=lambda wildcards: WORKFLOW.version("register", wildcards.method),
    message:
        "Importing the fields of {wildcards.method} ({wildcards.part})"
    script:
        "../scripts/import_fields.py"
