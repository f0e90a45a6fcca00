"""What one machine does: images to votes to certificates to Parquet. Knows nothing of ray."""
