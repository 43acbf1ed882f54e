"""Released data sets, in their own layouts, to records: one module each, and one table of them."""
