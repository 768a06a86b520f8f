"""The methods, one file or folder each: a problem in, incumbents and a lower bound out."""
