"""A SuperNode whose ClientApp is this installation, imported once and kept between messages."""
