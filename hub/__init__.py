"""The central server: takes codes from a fleet of recorders and answers plain-text queries over all of them."""
