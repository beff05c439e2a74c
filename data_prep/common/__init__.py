"""What several preparations of data share."""
