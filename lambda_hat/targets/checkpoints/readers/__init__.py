"""One reader a format: from a path to all arrays by name. None uses a template, because templates accept other shapes,
missing parts and other dtypes in silence. Each imports its library when it is called."""
