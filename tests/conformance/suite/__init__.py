"""The conformance suite: what any kernel of this project is asked, and what it answers."""
