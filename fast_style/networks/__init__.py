"""The networks: modules that know no files and no config."""
