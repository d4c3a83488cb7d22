"""What implementations are held to: contract suites, and seeded worlds with a known best answer."""
