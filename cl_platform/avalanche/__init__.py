"""The bridge to Avalanche, both ways; the only folder that imports it, and only when it is used."""
