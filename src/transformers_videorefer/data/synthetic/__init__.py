"""Made-up clips of moving shapes with exact questions and answers."""
