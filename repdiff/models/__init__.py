"""Linen modules with plain fields: layers, ViT encoder, DiT denoiser, autoencoder."""
