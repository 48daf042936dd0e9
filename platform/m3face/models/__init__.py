"""Networks on one device. Stock classes where they exist; what is ours is thin and says how it differs."""
