"""What trains, one file each: ``name(classifier, seed, ...)`` prepares a frozen classifier in place; an optional ``finish`` ends it."""
