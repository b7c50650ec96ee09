"""Schedule, per-example denoising loss, samplers. Knows no network, only a `denoise_fn`."""
