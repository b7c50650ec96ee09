"""Speed and memory, as ratios within one run: one module for each kind of benchmark."""
