"""One self-contained HTML page to look at proposals: photos, masks by rank, figures, found and missed objects."""
