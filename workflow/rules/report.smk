"""Tables, figures and the report, made only from result files."""


rule tables:
    """The summary, the comparisons with the reference, the scores of every label, and the box plots."""
    input:
        metrics=expand("<study>/metrics/{entry}.parquet", entry=WORKFLOW.table_entries),
        models=expand("<study>/models/{method}", method=WORKFLOW.learned_methods),
        labels=WORKFLOW.label_table,
    output:
        summary="<study>/tables/summary.csv",
        summary_html=report(
            "<study>/tables/summary.html",
            caption="../report/summary.rst",
            category="Comparison",
            labels={"what": "summary", "kind": "table"},
        ),
        comparisons=report(
            "<study>/tables/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Comparison",
            labels={"what": "comparisons with the reference", "kind": "table"},
        ),
        starts="<study>/tables/starts.csv",
        verdicts="<study>/tables/verdicts.csv",
        dice_labels=report(
            "<study>/tables/dice_by_label.csv",
            caption="../report/dice_by_label.rst",
            category="Comparison",
            labels={"what": "Dice of every label", "kind": "table"},
        ),
        hd95_labels=report(
            "<study>/tables/hd95_by_label.csv",
            caption="../report/hd95_by_label.rst",
            category="Comparison",
            labels={"what": "HD95 of every label", "kind": "table"},
        ),
        dice_boxes=report(
            "<study>/figures/dice_by_label.png",
            caption="../report/dice_boxes.rst",
            category="Comparison",
            labels={"what": "Dice by structure", "kind": "figure"},
        ),
        hd95_boxes=report(
            "<study>/figures/hd95_by_label.png",
            caption="../report/hd95_boxes.rst",
            category="Comparison",
            labels={"what": "HD95 by structure", "kind": "figure"},
        ),
    log:
        "<study>/logs/tables.log",
    benchmark:
        "<study>/benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        entries=WORKFLOW.table_entries,
        reference=config["evaluation"]["reference"],
        scored=config["labels"],
        stage=WORKFLOW.version("report"),
    message:
        "Making tables"
    script:
        "../scripts/tables.py"


rule training_curves:
    """Losses and validation Dice of every training."""
    input:
        models=expand("<study>/models/{method}", method=WORKFLOW.learned_methods),
    output:
        report(
            "<study>/figures/training_curves.png",
            caption="../report/training_curves.rst",
            category="Training",
            labels={"what": "training curves", "kind": "figure"},
        ),
    log:
        "<study>/logs/training_curves.log",
    benchmark:
        "<study>/benchmarks/training_curves.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        methods=WORKFLOW.learned_methods,
        stage=WORKFLOW.version("report"),
    message:
        "Drawing training curves"
    script:
        "../scripts/training_curves.py"


rule search_figure:
    """The trials of a method's search, and the importance of its hyperparameters."""
    input:
        "<study>/models/{method}",
    output:
        report(
            "<study>/figures/search_{method}.png",
            caption="../report/search.rst",
            category="Training",
            labels={"what": "search of {method}", "kind": "figure"},
        ),
    log:
        "<study>/logs/search_figure/{method}.log",
    benchmark:
        "<study>/benchmarks/search_figure/{method}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.searched),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        stage=WORKFLOW.version("report"),
    message:
        "Drawing the search of {wildcards.method}"
    script:
        "../scripts/search_figure.py"


rule architecture_figure:
    """The mixtures, or the weights of the objective, during a search for an architecture."""
    input:
        "<study>/architectures/{method}/trace.csv",
    output:
        report(
            "<study>/figures/architecture_{method}.png",
            caption="../report/architecture.rst",
            category="Training",
            labels={"what": "architecture of {method}", "kind": "figure"},
        ),
    log:
        "<study>/logs/architecture_figure/{method}.log",
    benchmark:
        "<study>/benchmarks/architecture_figure/{method}.tsv"
    wildcard_constraints:
        method=one_of(WORKFLOW.cell_searched),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        stage=WORKFLOW.version("report"),
    message:
        "Drawing the architecture of {wildcards.method}"
    script:
        "../scripts/architecture_figure.py"


rule pictures:
    """The best, median and worst pair of a method."""
    input:
        metrics="<study>/metrics/{method}.parquet",
        fields=lambda wildcards: WORKFLOW.fields(wildcards.method),
        scans=WORKFLOW.test_scans,
    output:
        report(
            "<study>/figures/pairs_{method}.png",
            caption="../report/pairs.rst",
            category="Pairs",
            labels={"what": "{method}", "kind": "figure"},
        ),
    log:
        "<study>/logs/pictures/{method}.log",
    benchmark:
        "<study>/benchmarks/pictures/{method}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stage=WORKFLOW.version("report"),
    message:
        "Drawing pairs of {wildcards.method}"
    script:
        "../scripts/pictures.py"


rule write_report:
    """The report: one self-contained HTML file."""
    input:
        summary="<study>/tables/summary.csv",
        comparisons="<study>/tables/comparisons.csv",
        starts="<study>/tables/starts.csv",
        verdicts="<study>/tables/verdicts.csv",
        labels=expand("<study>/tables/{metric}_by_label.csv", metric=["dice", "hd95"]),
        boxes=expand("<study>/figures/{metric}_by_label.png", metric=["dice", "hd95"]),
        pictures=expand("<study>/figures/pairs_{method}.png", method=PLAN.spotlight),
        curves="<study>/figures/training_curves.png" if WORKFLOW.learned_methods else [],
        searches=expand("<study>/figures/search_{method}.png", method=PLAN.searched_methods),
        architectures=expand("<study>/figures/architecture_{method}.png", method=PLAN.cell_searched_methods),
        fields=[part for name in PLAN.methods for part in WORKFLOW.fields(name)],
    output:
        report(
            "<study>/report.html",
            caption="../report/report.rst",
            category="Comparison",
            labels={"what": "the whole report", "kind": "page"},
        ),
    log:
        "<study>/logs/write_report.log",
    benchmark:
        "<study>/benchmarks/write_report.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=config,
        stage=WORKFLOW.version("report"),
    message:
        "Writing the report"
    script:
        "../scripts/write_report.py"
