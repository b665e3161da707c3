"""TU sets as archives: where they come from, what is refused, and which digests their files have."""
