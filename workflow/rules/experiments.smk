"""The experiments of the papers: tables and figures of variants that train, register and score like methods."""


rule experiment_table:
    """One table of a paper, as numbers and as a page of its own."""
    input:
        unpack(experiment_inputs),
        labels=label_table(),
    output:
        csv="<study>/experiments/{paper}/{experiment}.csv",
        html=report(
            "<study>/experiments/{paper}/{experiment}.html",
            caption="../report/experiment.rst",
            category="Experiments",
            subcategory="{paper}",
            labels={"what": "{experiment}", "kind": "table"},
        ),
    log:
        "<study>/logs/experiments/{paper}_{experiment}.log",
    benchmark:
        "<study>/benchmarks/experiments/{paper}_{experiment}.tsv"
    wildcard_constraints:
        paper="|".join(PLAN.experiments) or "none",
        experiment=r"table\d+",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=config["experiments"],
        groups=groups_of_pairs(),
        stage=version_of("experiment"),
    message:
        "Making {wildcards.experiment} of {wildcards.paper}"
    script:
        "../scripts/experiment.py"


rule experiment_figure:
    """One figure of a paper, with the numbers that it shows."""
    input:
        unpack(experiment_inputs),
        labels=label_table(),
    output:
        csv="<study>/experiments/{paper}/{experiment}.csv",
        png=report(
            "<study>/experiments/{paper}/{experiment}.png",
            caption="../report/experiment.rst",
            category="Experiments",
            subcategory="{paper}",
            labels={"what": "{experiment}", "kind": "figure"},
        ),
    log:
        "<study>/logs/experiments/{paper}_{experiment}.log",
    benchmark:
        "<study>/benchmarks/experiments/{paper}_{experiment}.tsv"
    wildcard_constraints:
        paper="|".join(PLAN.experiments) or "none",
        experiment=r"fig\d+",
    threads: 1
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=30,
    params:
        settings=config["experiments"],
        groups=groups_of_pairs(),
        stage=version_of("experiment"),
    message:
        "Drawing {wildcards.experiment} of {wildcards.paper}"
    script:
        "../scripts/experiment.py"


rule features:
    """Measure how much the features of a network vary over the series of contrasts of the test pairs."""
    input:
        prepared=prepared_parts(test_scans()),
        model=model_of,
    output:
        "<study>/features/{method}.csv",
    log:
        "<study>/logs/features/{method}.log",
    benchmark:
        "<study>/benchmarks/features/{method}.tsv"
    threads: 1
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=120 if LARGE else 30,
    params:
        pairs=PLAN.pairs_of("test")["pair"].to_list(),
        stage=lambda wildcards: version_of("features", wildcards.method),
    message:
        "Measuring the features of {wildcards.method}"
    script:
        "../scripts/features.py"


rule weights:
    """Measure the weight volumes of a network on the test pairs, and keep those of one pair."""
    input:
        prepared=prepared_parts(test_scans()),
        model=model_of,
    output:
        table="<study>/weights/{method}.csv",
        volumes="<study>/weights/{method}.safetensors",
    log:
        "<study>/logs/weights/{method}.log",
    benchmark:
        "<study>/benchmarks/weights/{method}.tsv"
    threads: 1
    resources:
        mem_mb=8000 if LARGE else 2000,
        runtime=120 if LARGE else 30,
    params:
        pairs=PLAN.pairs_of("test")["pair"].to_list(),
        stage=lambda wildcards: version_of("weights", wildcards.method),
    message:
        "Measuring the weight volumes of {wildcards.method}"
    script:
        "../scripts/weights.py"


rule voxelmorph:
    """Every table and figure of the VoxelMorph paper, on this study's cohort."""
    input:
        voxelmorph_outputs,
    localrule: True


rule hypermorph:
    """Every table and figure of the HyperMorph paper, on this study's cohort."""
    input:
        hypermorph_outputs,
    localrule: True


rule autoreg:
    """Tables and figures of the AutoReg paper, on this study's cohort."""
    input:
        autoreg_outputs,
    localrule: True


rule spr:
    """Tables and figures of the TM-SPR paper, on this study's cohort."""
    input:
        spr_outputs,
    localrule: True


rule synthmorph:
    """Figures and tables of the SynthMorph paper, on this study's cohort."""
    input:
        synthmorph_outputs,
    localrule: True
