"""What else a run fits for its candidates and its ranker's data: solved models, the zoo's, content, click weights."""
