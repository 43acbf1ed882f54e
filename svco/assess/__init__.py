"""Says how good a model is: any base, with or without an adapter, on shards and benchmarks, with errors and paired tests."""
