"""What the product asks of the store: windows of heads, rows, requests and findings."""
