"""One request's way: user, variant, version, stages under deadlines, what stands in where a part fails, the decision record."""
