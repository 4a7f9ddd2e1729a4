"""Charts, one file a page: records in, figure out."""
