"""One policy step, one file: each asks one question of a call and returns or raises a refusal."""
