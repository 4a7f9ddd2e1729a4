"""The bundled world of glyphs: fonts, nuisance and the tasks drawn with them."""
