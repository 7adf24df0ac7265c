"""The 2.5D network of Duan et al. 2019."""
