"""The report: what every experiment left behind, with the words that belong to it, on one page."""
