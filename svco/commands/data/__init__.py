"""From other people's files to shards: import into records, filter them, build shards of them, verify shards."""
