"""The embedded cohort, made from the ICBM-152 template."""


rule list_cohort:
    """The embedded cohort's table, and the table of its labels."""
    output:
        cohort="<study>/cohort/cohort.tsv",
        labels="<study>/cohort/labels.tsv",
    log:
        "<study>/logs/list_cohort.log",
    benchmark:
        "<study>/benchmarks/list_cohort.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=config["cohort"].get("embedded"),
        stage=WORKFLOW.version("list_cohort"),
    message:
        "Listing the embedded cohort"
    script:
        "../scripts/list_cohort.py"


rule synthesise:
    """Images, labels, landmarks and true maps of one part of the embedded cohort's subjects."""
    output:
        directory("<study>/cohort/{part}"),
    log:
        "<study>/logs/synthesise/{part}.log",
    benchmark:
        "<study>/benchmarks/synthesise/{part}.tsv"
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 240),
    params:
        settings=config["cohort"].get("embedded"),
        seed=config["seed"],
        subjects=lambda wildcards: WORKFLOW.subjects_in(wildcards.part),
        stage=WORKFLOW.version("synthesise"),
    message:
        "Making subjects from the ICBM-152 template ({wildcards.part})"
    script:
        "../scripts/synthesise.py"


rule true_fields:
    """The true field of every test pair, in the layout of a method's fields."""
    input:
        scans=WORKFLOW.test_scans,
    output:
        directory("<study>/fields/truth/{part}"),
    log:
        "<study>/logs/true_fields/{part}.log",
    benchmark:
        "<study>/benchmarks/true_fields/{part}.tsv"
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 120),
    params:
        pairs=lambda wildcards: WORKFLOW.pairs_in(wildcards.part),
        stage=WORKFLOW.version("truth"),
    message:
        "Composing the true fields ({wildcards.part})"
    script:
        "../scripts/true_fields.py"
