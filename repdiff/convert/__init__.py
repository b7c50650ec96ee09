"""PyTorch weights to Orbax: one strict engine, one table per source."""
