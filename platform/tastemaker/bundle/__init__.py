"""One released whole: manifest, writer, reader. Not for what the models in it do."""
