"""Tables, figures and the self-contained page, made from a workdir's files alone."""
