"""What is wrong with annotations and videos: checking, probing, auditing."""
