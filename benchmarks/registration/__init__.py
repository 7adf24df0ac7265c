"""One pair of label maps against other registration packages."""
