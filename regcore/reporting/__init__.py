"""Tables, figures and the report page, all computed from result files; no retraining needed."""
