"""Tables, figures and the page; all computed from result files, so a report needs no retraining."""
