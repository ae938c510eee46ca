"""Registration of the test pairs; classical and learned methods alike."""


rule register:
    """Find the fields of some of the test pairs with one method."""
    input:
        prepared=prepared_of_pairs,
        model=model_of,
    output:
        directory("<study>/fields/{method}/{part}"),
    log:
        "<study>/logs/register/{method}/{part}.log",
    benchmark:
        "<study>/benchmarks/register/{method}/{part}.tsv"
    wildcard_constraints:
        method=METHOD_NAMES,
    threads: 1
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=1440 if LARGE else 60,
    params:
        method=lambda wildcards: PLAN.method_of(wildcards.method),
        settings=settings_of,
        pairs=lambda wildcards: pairs_in(wildcards.part),
        stage=STAGE_VERSIONS["register"],
    message:
        "Registering with {wildcards.method} ({wildcards.part})"
    script:
        "../scripts/register.py"
