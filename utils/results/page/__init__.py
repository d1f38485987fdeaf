"""report.html: one self-contained page a test run, with tables, plots and every case to look at."""
