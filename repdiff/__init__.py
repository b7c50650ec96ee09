"""repdiff: image classification with a diffusion model as a pre-training model (arXiv 2505.06890).

Shape alphabet, used in every docstring and comment:
  B batch · H W C image or latent · N tokens · D width · K candidate classes · S draws of (t, ε)
  T diffusion steps · L blocks
"""
