"""Images in: CT reading and windowing, simulated CT, records, splits and the grain pipeline. No jax here."""
