"""One file per plot of the card; each takes a record and gives a matplotlib Figure."""
