"""What benchmarks share: cases, measuring, scoring, storing, tables and figures."""
