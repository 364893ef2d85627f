"""Problems to score: what a model is asked, what it answered, and what the verdicts add up to."""
