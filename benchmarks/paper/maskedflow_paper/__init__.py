"""The tables of the MAF paper, made again: what ``maskedflow reproduce`` does."""
