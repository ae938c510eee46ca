"""The experiments of the papers: tables and figures, from variants that run like the study's methods."""


rule experiment_table:
    """One table of a paper, as CSV and HTML."""
    input:
        unpack(lambda wildcards: WORKFLOW.experiment(wildcards.paper, wildcards.experiment)),
        labels=WORKFLOW.label_table,
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
        paper=one_of(PLAN.papers),
        experiment=r"table\d+",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=config["experiments"],
        groups=WORKFLOW.groups_of_pairs,
        stage=WORKFLOW.version("experiment"),
    message:
        "Making {wildcards.experiment} of {wildcards.paper}"
    script:
        "../scripts/experiment.py"


rule experiment_figure:
    """One figure of a paper, with its numbers as CSV."""
    input:
        unpack(lambda wildcards: WORKFLOW.experiment(wildcards.paper, wildcards.experiment)),
        labels=WORKFLOW.label_table,
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
        paper=one_of(PLAN.papers),
        experiment=r"fig\d+",
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=30,
    params:
        settings=config["experiments"],
        groups=WORKFLOW.groups_of_pairs,
        stage=WORKFLOW.version("experiment"),
    message:
        "Drawing {wildcards.experiment} of {wildcards.paper}"
    script:
        "../scripts/experiment.py"


rule features:
    """Measure how much the features of a network vary over the test pairs' series of contrasts."""
    input:
        prepared=WORKFLOW.prepared_to_test,
        model=lambda wildcards: WORKFLOW.model(wildcards.method),
    output:
        "<study>/features/{method}.csv",
    log:
        "<study>/logs/features/{method}.log",
    benchmark:
        "<study>/benchmarks/features/{method}.tsv"
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 120),
        gpu=WORKFLOW.gpus("features"),
    params:
        pairs=PLAN.pairs_of("test")["pair"].to_list(),
        stage=lambda wildcards: WORKFLOW.version("features", wildcards.method),
    message:
        "Measuring the features of {wildcards.method}"
    script:
        "../scripts/features.py"


rule weights:
    """Measure the weight volumes of a network on the test pairs, and store those of one pair."""
    input:
        prepared=WORKFLOW.prepared_to_test,
        model=lambda wildcards: WORKFLOW.model(wildcards.method),
    output:
        table="<study>/weights/{method}.csv",
        volumes="<study>/weights/{method}.safetensors",
    log:
        "<study>/logs/weights/{method}.log",
    benchmark:
        "<study>/benchmarks/weights/{method}.tsv"
    threads: 1
    resources:
        mem_mb=WORKFLOW.sized(2000, 8000),
        runtime=WORKFLOW.sized(30, 120),
        gpu=WORKFLOW.gpus("weights"),
    params:
        pairs=PLAN.pairs_of("test")["pair"].to_list(),
        stage=lambda wildcards: WORKFLOW.version("weights", wildcards.method),
    message:
        "Measuring the weight volumes of {wildcards.method}"
    script:
        "../scripts/weights.py"


for paper in WORKFLOW.papers:

    rule:
        """Every table and figure of the paper, on this study's cohort."""
        name:
            paper
        input:
            lambda wildcards, paper=paper: answered(WORKFLOW.experiments, paper),
        localrule: True
