"""An example of a package of plugins: each module holds one part."""
