"""Fields of the test pairs: classical and learned methods alike, and fields made elsewhere."""


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
        method=REGISTERED_NAMES,
    threads: config["registration"]["threads"]
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=registration_minutes,
    params:
        method=lambda wildcards: PLAN.method_of(wildcards.method),
        settings=settings_of,
        pairs=lambda wildcards: pairs_in(wildcards.part),
        threads_per_pair=config["registration"]["threads"],  # some tools' fields depend on it
        stage=lambda wildcards: version_of("register", wildcards.method),
    message:
        "Registering with {wildcards.method} ({wildcards.part})"
    script:
        "../scripts/register.py"


rule import_fields:
    """Bring fields made elsewhere into the layout of a method's fields."""
    input:
        fields=imported_files,
        scans=scans_of_pairs,
    output:
        directory("<study>/fields/{method}/{part}"),
    log:
        "<study>/logs/import_fields/{method}/{part}.log",
    benchmark:
        "<study>/benchmarks/import_fields/{method}/{part}.tsv"
    wildcard_constraints:
        method=IMPORTED_NAMES,
    threads: 1
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=120 if LARGE else 30,
    params:
        settings=settings_of,
        files=lambda wildcards: [PLAN.imported[wildcards.method].get(pair) for pair in pairs_in(wildcards.part)],
        pairs=lambda wildcards: pairs_in(wildcards.part),
        stage=lambda wildcards: version_of("register", wildcards.method),
    message:
        "Importing the fields of {wildcards.method} ({wildcards.part})"
    script:
        "../scripts/import_fields.py"
