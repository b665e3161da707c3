"""The commands, a few to a file: each loads sets, measures, draws and concludes."""
