"""The neutral operator: rules, money, aggregation. It never sees private data."""
