"""Task losses, one file each: ``name(batch, ...) -> scalar``, what the new task is learned by."""
