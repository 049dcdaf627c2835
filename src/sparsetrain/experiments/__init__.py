"""Many runs from one recipe: what to run, running it, and what came out as a table."""
