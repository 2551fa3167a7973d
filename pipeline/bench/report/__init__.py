"""How quickly the report of many findings is shown: made-up findings, in a real browser."""
