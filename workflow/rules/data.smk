"""Scans: checked, aligned, and resampled to one grid."""


rule check_cohort:
    """Read every voxel of a user's cohort once: a damaged file is found before any long job."""
    input:
        table=WORKFLOW.cohort_table,
        scans=WORKFLOW.cohort_scans,
    output:
        "<study>/cohort_checked.txt",
    log:
        "<study>/logs/check_cohort.log",
    benchmark:
        "<study>/benchmarks/check_cohort.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        stage=WORKFLOW.version("check"),
    message:
        "Reading through the cohort"
    script:
        "../scripts/check_cohort.py"


rule prepare:
    """Align scans to the reference, resample them to the common grid, normalise their intensities."""
    input:
        scans=lambda wildcards: WORKFLOW.scans_to_prepare(wildcards.part),
    output:
        directory("<study>/prepared/{part}"),
    log:
        "<study>/logs/prepare/{part}.log",
    benchmark:
        "<study>/benchmarks/prepare/{part}.tsv"
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 240),
    params:
        scans=lambda wildcards: WORKFLOW.scans_in(wildcards.part),
        settings=config["preprocess"],
        reference=PLAN.reference,
        seed=config["seed"],
        stage=WORKFLOW.version("prepare"),
    message:
        "Preparing scans ({wildcards.part})"
    script:
        "../scripts/prepare.py"


rule list_pairs:
    """The validation and test pairs with their files: what to register elsewhere, and the file names for an import."""
    input:
        WORKFLOW.checked_cohort,
    output:
        "<study>/pairs.tsv",
    log:
        "<study>/logs/list_pairs.log",
    benchmark:
        "<study>/benchmarks/list_pairs.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        pairs=PLAN.pairs.to_dict("list"),
        stage=WORKFLOW.version("check"),
    message:
        "Listing the pairs"
    script:
        "../scripts/list_pairs.py"
