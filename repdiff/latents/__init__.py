"""Between images and z0: weight-free front ends, the Stable Diffusion VAE, the latent cache."""
