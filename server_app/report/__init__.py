"""``report.html``: what a run, or several, came to, in one file for people."""
