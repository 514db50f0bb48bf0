"""Around the lessons: building the notebooks, handing out learners' copies, checks."""
