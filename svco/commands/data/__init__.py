"""From other people's files to shards: import into records, build shards from records, verify shards."""
