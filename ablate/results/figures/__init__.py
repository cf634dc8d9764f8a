"""What is drawn: learning curves and the numbers of finished tables."""
