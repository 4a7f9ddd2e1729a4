"""Foundation models, one file each: the file's name is the model's name."""
