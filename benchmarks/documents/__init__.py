"""The tables and figures of the documents, from stored results."""
