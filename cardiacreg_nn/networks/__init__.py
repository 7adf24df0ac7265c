"""The networks: SSLLN, a slice-wise U-Net, and those they are compared with."""
