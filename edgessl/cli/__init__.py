"""Command line: one thin function per command; torch and pydantic are loaded when needed."""
