"""What a training phase minimises."""
