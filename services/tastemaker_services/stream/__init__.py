"""What is done beside requests: events are applied, chores, guardrails."""
