"""Classification by the denoiser: errors per class and draw, decision rules, calibration."""
