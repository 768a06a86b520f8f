"""The methods: a problem in, incumbents and a bound out; one file or folder each."""
