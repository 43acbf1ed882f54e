"""``svco ask``: one question about one image or two, answered by a base and by what training made of it."""
